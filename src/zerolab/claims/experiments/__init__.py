"""One module per experiment of the ledger. Each holds a PROTOCOL that is fixed before its runs."""
