"""Which packages there are: the folders of src/genlab and of configs/, found. All else stands in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages("src"),
        "genlab.configs",
        *(f"genlab.configs.{name}" for name in find_namespace_packages("configs")),
    ]
)
