"""The reconciliation API (对账接口): HTTP under `/v1`, one file a resource. It decides nothing: what it answers, `ledger/` found out.

    app.py                the application: `create_app` for uvicorn, OpenAPI, what happens at start and end
    office.py             what one worker process holds: the open workspace, the queue's runner, limits, counters
    gate.py  bodies.py    around every request: headers, one log line, faults; size and pace of bodies
    security.py           bearer tokens and scopes
    problems.py words.py  errors as problem details (RFC 9457), Chinese or English
    runner.py             one reconciliation at a time in a child process
    reconciliations.py findings.py catalogs.py batches.py records.py verification.py health.py metrics.py    the resources

Routes run in threads (they read store, chain and files); only streams of events stay on the event loop.
"""
