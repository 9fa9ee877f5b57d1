"""The built-in chat templates, by name, for models that bring none of their own: strings, no tokenizer.

Serving and training must render a prompt to the very same tokens, so both read the template here.
"""

from __future__ import annotations

from pathlib import Path

from store.errors import BadValue

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHAT_TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "zephyr": ZEPHYR}


def read_chat_template(choice: str | None) -> str | None:
    """The Jinja text of a built-in name or of a file; None (the model's own template) stays None."""
    if choice is None:
        return None
    if choice in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[choice]
    if Path(choice).is_file():
        return Path(choice).read_text("utf-8")
    raise BadValue(f"chat template {choice!r} is neither a file nor one of {', '.join(CHAT_TEMPLATES)}")
