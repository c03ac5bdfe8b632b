"""What pyproject.toml cannot say: conf/ stands beside the package in a clone and inside it in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["asrcompress*"]), "asrcompress.conf"],
    package_dir={"asrcompress.conf": "conf"},
    package_data={
        "asrcompress": ["py.typed"],
        "asrcompress.conf": ["*.yaml", "*/*.yaml"],
        "asrcompress.data.quickstart": ["*.txt"],
        "asrcompress.report": ["*.html"],
    },
)
