"""The bodies of requests: every field with its type and range.  They are the OpenAPI document's
schemas too.

Unknown fields are errors: a parameter that is not honoured must not look as if it were.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPTS = 256
MAX_SAMPLES = 16
MAX_STOPS = 16
MAX_BIASES = 1024
MAX_MESSAGES = 256
MAX_PATTERN = 65_536
MAX_ROWS = 4096

Count = Annotated[int, Field(ge=0, le=1 << 31)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
TokenId = Annotated[int, Field(ge=0, le=1 << 31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Pattern = Annotated[str, Field(max_length=MAX_PATTERN)]
Schema = Annotated[str, Field(max_length=500_000)] | dict[str, Any]
Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 64) - 1)]
Prompts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
IdPrompts = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopK = Annotated[int, Field(ge=-1, le=1 << 31)]
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES, description="Token id -> what is added to its logit.")]


class Body(BaseModel):
    """Types as JSON has them (no texts for numbers), finite numbers, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Sampling(Body):
    """What all requests may say about sampling."""

    top_p: Share | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] | None = None


class SamplingParams(_Sampling):
    """SGLang's sampling parameters."""

    max_new_tokens: Count | None = None
    min_new_tokens: Count | None = None
    stop: Stop | Stops | None = None
    stop_regex: Any = Field(None, description="Not taken from requests.")
    temperature: Temperature | None = None
    logit_bias: LogitBias | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    no_stop_trim: bool | None = None
    seed: Seed | None = None
    sampling_seed: Seed | None = None
    dtype: Literal["int", "float", "bool", "str"] | None = None
    regex: Pattern | None = None
    json_schema: Schema | None = None
    ebnf: Pattern | None = None
    choices: Annotated[list[Annotated[str, Field(min_length=1)]],
                       Field(min_length=1, max_length=1024)] | None = None


class GenerateRequest(Body):
    """SGLang's native request: one prompt or a batch, as texts or token ids."""

    text: str | Prompts | None = None
    input_ids: TokenIds | IdPrompts | None = None
    sampling_params: SamplingParams | Annotated[
        list[SamplingParams], Field(max_length=MAX_PROMPTS)] | None = None
    return_logprob: bool | list[bool] | None = None
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: Annotated[int, Field(ge=0, le=20)] | list[
        Annotated[int, Field(ge=0, le=20)]] | None = None
    return_text_in_logprobs: bool = False
    stream: bool = False
    rid: str | list[str] | None = Field(None, description="A label; it is not used as a key.")
    image_data: str | Annotated[list[str | list[str | None] | None], Field(
        max_length=MAX_PROMPTS)] | None = Field(
        None, description="Images, as base64 or data: URLs: those of the text, in the order of "
        "the places that it marks; for several texts a list with one's each.")


class StreamOptions(Body):
    include_usage: bool = False


class _OpenAI(_Sampling):
    """What both OpenAI endpoints take, with this server's own fields."""

    model: Annotated[str, Field(max_length=1024)] = "default"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    stop: Stop | Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    logit_bias: LogitBias | None = None
    user: str | None = None
    # Not in OpenAI's API: clients send them through `extra_body`.
    min_tokens: Count | None = None
    regex: Pattern | None = None
    choices: Annotated[list[Annotated[str, Field(min_length=1)]],
                       Field(min_length=1, max_length=1024)] | None = None
    json_schema: Schema | None = None
    ebnf: Pattern | None = None


class CompletionRequest(_OpenAI):
    """`/v1/completions`."""

    prompt: str | Prompts | TokenIds | IdPrompts
    max_tokens: Count | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = Field(None, description="Must equal `n`.")
    suffix: str | None = Field(None, description="Refused.")


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImagePart(Body):
    """An image, as a data: URL: the text, or an object with it as `url`."""

    type: Literal["image_url"]
    image_url: Any = None


class CalledFunction(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | dict[str, Any]


class ToolCall(Body):
    """A call that an assistant's message made."""

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Count | None = None


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart | ImagePart], Field(
        min_length=1, max_length=64)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=128)] | None = None


class NamedSchema(Body):
    name: Annotated[str, Field(max_length=256)]
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatRequest(_OpenAI):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None


class ProgramOptions(_Sampling):
    """What `run()` says for all gens of a program, by the names of `sglc.config.RunOptions`."""

    max_tokens: Count | None = None
    min_tokens: Count | None = None
    stop: Stops | None = None
    temperature: Temperature | None = None
    no_stop_trim: bool | None = None
    return_logprob: bool | None = None
    logprob_start_len: Annotated[int, Field(ge=-1)] | None = None
    top_logprobs_num: Annotated[int, Field(ge=0, le=20)] | None = None
    return_text_in_logprobs: bool | None = None
    heal: bool | None = None


class ProgramRequest(Body):
    """A compiled program as IR text, with the arguments of each row."""

    ir: Annotated[str, Field(max_length=1_000_000)]
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ROWS)]
    images: list[str] = Field(default_factory=list, description="Files of images, in base64; a "
                              'row has one as {"$image": its number}.')
    options: ProgramOptions = Field(default_factory=ProgramOptions)
    seed: Seed = 0
    first_row: Count = 0
    row_numbers: list[Count] | None = Field(
        None, description="The rows' numbers in the client's batch: sampling depends on them.")
    batch: dict[str, int] | None = Field(
        None, description="In how many rows of the client's batch each text is (level 3).")
    level: Annotated[int, Field(ge=0, le=3)] = 2
    outputs: list[str] | None = None
    without: Annotated[list[str], Field(max_length=32)] = Field(default_factory=list)
