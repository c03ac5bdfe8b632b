"""Speech-recognition compression toolkit: small acoustic models, and an honest account of what each step cost."""

__version__ = "0.1.0"
