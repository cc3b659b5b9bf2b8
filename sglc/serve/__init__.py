"""The server: an engine behind `/generate`, the OpenAI API and `/v1/programs`.

One process: asyncio in front of the engine's thread.  The event loop only moves data; tokenizing,
compiling constraints and everything that takes the engine's lock happen in small thread pools.
Nothing is imported here: see `app.py` (the application), `run.py` (a server in a process or a
thread), `remote.py` and `runtime.py` (what Python programs use).
"""
