"""`Runtime`: SGLang's class of this name: a model and its server, in this process.

As a backend it runs programs on its engine directly; `.endpoint` goes through HTTP.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any

from sglc.errors import ApiError, LanguageError
from sglc.serve.options import parsed

# keyword -> flag; SGLang's keywords, of early 2024 and later.
_FLAGS = {
    "tokenizer_path": "--tokenizer-path", "load_format": "--load-format",
    "tokenizer_mode": "--tokenizer-mode", "mem_fraction_static": "--mem-fraction-static",
    "max_prefill_num_token": "--max-prefill-num-token", "tp_size": "--tp",
    "model_mode": "--model-mode", "schedule_heuristic": "--schedule-heuristic",
    "schedule_policy": "--schedule-heuristic", "random_seed": "--random-seed",
    "log_level": "--log-level", "context_length": "--context-length", "api_key": "--api-key",
    "chat_template": "--chat-template", "dtype": "--dtype", "device": "--device",
    "kv_tokens": "--kv-tokens", "host": "--host", "served_model_name": "--served-model-name",
    "disable_radix_cache": "--disable-radix-cache",
    "disable_regex_jump_forward": "--disable-regex-jump-forward",
    "enable_flashinfer": "--enable-flashinfer",
    "attention_reduce_in_fp32": "--attention-reduce-in-fp32",
}
_LINE = 1 << 23  # bytes of an event, which has all text so far
_SWITCHES = frozenset(("disable_radix_cache", "disable_regex_jump_forward",
                       "enable_flashinfer", "attention_reduce_in_fp32"))


class Runtime:
    """A model with a server on a port of this machine.  Also a context manager.

    model_path: as `sglc serve --model`; None is the default model.  port: None for any free one.
    Other keywords are SGLang's, with the meaning of the flags of `sglc serve`; what has none is
    an error (SGLC008).  `trust_remote_code` and `additional_ports` are accepted, without effect:
    no code is loaded, and no other port is needed.
    """

    def __init__(self, model_path: str | None = None, tokenizer_path: str | None = None, *,
                 port: int | None = None, trust_remote_code: bool = True,
                 additional_ports: Any = None, **given: Any) -> None:
        from sglc.serve.engines import open_backend
        from sglc.serve.opening import open_service
        from sglc.serve.run import BackgroundServer

        argv = ["--port", str(port or 0)]
        if model_path is not None:
            argv += ["--model-path", str(model_path)]
        for name, value in {"tokenizer_path": tokenizer_path, **given}.items():
            if name not in _FLAGS:
                raise LanguageError("SGLC004", f"Runtime has no keyword {name!r}",
                                    fixes=("use some of " + ", ".join(sorted(_FLAGS)),))
            if value is None or (name in _SWITCHES and not value) or value == ():
                continue
            argv.append(_FLAGS[name])
            if name not in _SWITCHES:
                argv += [str(v) for v in value] if isinstance(value, (list, tuple)) else [
                    str(value)]
        options = parsed(argv)
        self._key = options.api_keys[0] if options.api_keys else None
        self.backend = open_backend(options)
        try:
            self._server = BackgroundServer(open_service(options, self.backend), options.host,
                                            options.port)
        except BaseException:
            self.backend.close()
            raise

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def generate_url(self) -> str:
        return self.url + "/generate"

    @cached_property
    def endpoint(self) -> Any:
        """A `RuntimeEndpoint` of the server."""
        from sglc.backends.remote import RuntimeEndpoint

        return RuntimeEndpoint(self.url, api_key=self._key)

    async def add_request(self, prompt: str, sampling_params: Mapping[str, Any]
                          ) -> AsyncIterator[str]:
        """The text that goes on after a raw prompt, piece by piece, through HTTP.  Raises ApiError
        SGLC509 if the server refuses, or breaks off."""
        import aiohttp

        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        body = {"text": prompt, "sampling_params": dict(sampling_params), "stream": True}
        sent = 0
        try:
            async with aiohttp.ClientSession(
                    headers=headers, read_bufsize=_LINE,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=30)) as session, \
                    session.post(self.generate_url, json=body) as response:
                async for line in response.content:
                    event = line.strip().removeprefix(b"data: ")
                    if event == b"[DONE]":
                        return
                    if event:
                        found = json.loads(event)
                        if "error" in found:
                            raise ApiError("SGLC509", "the server broke a request off",
                                           why=found["error"]["message"])
                        if piece := found["text"][sent:]:
                            sent += len(piece)
                            yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError("SGLC509", "the server cannot be reached, or went away",
                           why=str(error) or type(error).__name__) from error
        raise ApiError("SGLC509", "the server's answer ended too early")

    def get_tokenizer(self) -> Any:
        return self.backend.tokenizer

    def shutdown(self) -> None:
        """Stop the server and close the engine.  Idempotent."""
        if "endpoint" in self.__dict__:
            self.endpoint.close()
        self._server.stop()
        self.backend.close()

    close = shutdown

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "backend":
            raise AttributeError(name)
        return getattr(self.backend, name)  # as a backend, it is its engine

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.shutdown()
