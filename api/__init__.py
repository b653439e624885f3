"""The reconciliation API (FastAPI). It comes with the service; this version is used from the command line alone."""
