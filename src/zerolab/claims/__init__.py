"""Re-tests of the paper's claims, one module each."""
