"""Celery workers as rows with heartbeats: `heartbeat` writes them in each worker, `report` reads them.

The broker cannot be asked which workers are alive: PGMQ has no broadcast.
"""
