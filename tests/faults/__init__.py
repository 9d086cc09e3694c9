"""A campaign against what a run promises: ``make faults``. A module a promise; campaign.py runs their trials."""
