"""The chat templates that backends of this process know by name."""

from __future__ import annotations

from sglc.tokens.templates import TemplateRegistry

registry = TemplateRegistry()
"""Built-in templates and those that users register (SGLang's `register_chat_template`)."""
