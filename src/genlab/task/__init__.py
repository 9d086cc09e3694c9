"""What models are used for, and so judged by: what is asked, drawn and compared."""
