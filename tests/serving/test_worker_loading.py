"""What a worker learns of a checkpoint's template: whether it reasons in <think> tags."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from freehold.ops.create import create
from freehold.serving.worker import WorkerSettings
from freehold.serving.worker.loading import checkpoint_loader

BODY = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
STRIPPED = "{{ m['content'].split('</think>')[-1] }}"
TEMPLATES = {
    "plain": (BODY + "assistant: ", False),
    "deepseek_r1": (BODY + "assistant: <think>\n", True),
    "qwen3": (BODY.replace("{{ m['content'] }}", STRIPPED) + "assistant: ", True),
    "user_only": ("{{ messages[0]['content'] }}", False),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_treats_the_tag_is_known_by_it(name, tmp_path):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))
    from tiny import write_checkpoint

    template, expected = TEMPLATES[name]
    write_checkpoint(tmp_path, "llama")
    (tmp_path / "chat_template.jinja").write_text(template)
    settings = WorkerSettings(model=tmp_path, ops=create("reference"))
    loaded = checkpoint_loader(settings)(tmp_path, None)
    assert loaded.think_tags.is_known is expected
    assert loaded.revision
    assert loaded.architecture == "LlamaForCausalLM"
    split = loaded.think_tags.split(template)
    assert (split is not None) is expected
    if name == "deepseek_r1":
        assert split.push("why</think>so") == ("so", "why")
