"""Certificates: what an objective really optimises, measured on the code that trains."""
