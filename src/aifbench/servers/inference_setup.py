"""What an inference benchmark finds out and prepares before the first request that counts."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError
from aifbench.servers.benchmark import BenchmarkContext
from aifbench.workloads.capabilities import Capabilities, probe_capabilities
from aifbench.workloads.openai_control import OpenAIControl
from aifbench.workloads.prompts import PromptSpec, ServerTokenizer, load_source, prepare

_LOOKED_AT = 200  # prompts whose lengths are held against the model's context


class Setup:
    """One server and one model, and what they can do. Raises ServiceError when they cannot be used."""

    def __init__(self, options: Mapping[str, Any], context: BenchmarkContext) -> None:
        self.options = options
        self.context = context
        context.progress.phase("server", "what it offers")
        self.capabilities: Capabilities = probe_capabilities(context.endpoint, options["model"])
        for line in self.capabilities.explain():
            context.progress.note(line)
        self.api = self._choose_api()
        # A server that ignores an early end makes as many tokens as it is asked for.
        self.is_exact = self.capabilities.extra_fields and not options["stop_early"]
        self._sources: dict[str, Any] = {}

    @property
    def model(self) -> str:
        return self.capabilities.model

    @property
    def extra(self) -> dict[str, Any]:
        """Fields of every request for generation of a given length."""
        return {**self.plain, **({"ignore_eos": True} if self.is_exact else {})}

    @property
    def plain(self) -> dict[str, Any]:
        """Fields of every request for generation."""
        fields: dict[str, Any] = {"temperature": self.options["temperature"]}
        if not self.capabilities.usage_in_stream:
            fields["stream_options"] = None
        if self.capabilities.extra_fields:
            # Special tokens count as output. Left out of the text, they would not be seen to arrive.
            fields["skip_special_tokens"] = False
        return fields

    def source(self, name: str = "", **changes: Any) -> str:
        """Prepare prompts as asked, with `changes` to their description: the path for workers."""
        spec = self._spec(changes)
        self.context.progress.phase("prompts", name or f"{spec.kind}, {spec.input_tokens} tokens")
        folder = self.context.data_dir / "prompts"
        if self.capabilities.tokenize and spec.how == "words" and not spec.tokenizer:
            with closing(OpenAIControl(self.context.endpoint)) as control:
                path = prepare(spec, folder, ServerTokenizer(_poster(control), self.model))
        else:
            path = prepare(spec, folder)
        self._check_lengths(path)
        self._sources[name or spec.kind] = about = load_source(path).describe()
        if about.get("note"):
            self.context.progress.note(str(about["note"]))
        return str(path)

    def facts(self) -> dict[str, Any]:
        return {"server": self.capabilities.to_json(), "api": self.api, "prompts": self._sources}

    def _choose_api(self) -> str:
        """Empty where the server generates nothing, because it embeds."""
        asked, found = self.options["api"], self.capabilities
        offered = [api for api in ("chat", "completions") if getattr(found, api)]
        if self.options["ids"]:
            if asked == "chat" or not found.token_prompts:
                raise UsageError("--ids needs completions that take token ids", hint="leave --ids out")
            return "completions"
        if asked and asked not in offered:
            raise UsageError(f"the server offers no {asked}", hint=f"it offers {' and '.join(offered)}")
        return asked or next(iter(offered), "")

    def _spec(self, changes: Mapping[str, Any]) -> PromptSpec:
        options, kind = self.options, str(self.options["prompts"])
        values: dict[str, Any] = {
            "kind": kind,
            "input_tokens": options["input_tokens"],
            "output_tokens": options["output_tokens"],
            "seed": options["seed"],
            "salt": self.context.run_tag,
            "tokenizer": options["tokenizer"],
            "how": "ids" if options["ids"] else "words",
        }
        if kind not in ("synthetic", "repeat", "prefix"):
            values |= {"kind": "file", "path": kind}
            if "output_tokens" not in (options.get("given") or ()):
                values["output_tokens"] = ""  # as the file says
        if kind == "prefix":
            values |= {"prefixes": options["prefixes"], "prefix_tokens": options["prefix_tokens"]}
        return PromptSpec(**{**values, **changes})

    def _check_lengths(self, path: Path) -> None:
        limit, source = self.capabilities.max_model_len, load_source(path)
        if limit is None:
            return
        # Without a tokenizer nobody counts, and what was asked for is the best guess.
        typical = source.describe().get("input", {}).get("p50", 0)
        for index in range(min(_LOOKED_AT, source.size or _LOOKED_AT)):
            prompt = source.prompt(index)
            before, after = prompt.prompt_tokens or typical, prompt.output_tokens or 0
            if before + after > limit:
                raise UsageError(
                    f"a prompt of {before:,} and an answer of {after:,} tokens are more than "
                    f"the {limit:,} of {self.model}",
                    hint="lower --input-tokens or --output-tokens, or start it with a larger --max-model-len",
                )


def _poster(control: OpenAIControl) -> Any:
    def post(body: dict[str, Any]) -> Mapping[str, Any]:
        answer = control.exchange("POST", "/tokenize", body)
        found: Mapping[str, Any] = answer.json() if answer.ok else {}
        return found

    return post
