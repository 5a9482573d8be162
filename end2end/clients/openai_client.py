"""What the official `openai` package does with a deck: run by server/tests/it/clients.rs. Prints what it saw as JSON."""

import json
import sys
import time

import openai

# The second key may ask a few times a minute.
base_url, key, model, limited_key = sys.argv[1:5]
client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
ask = [{"role": "user", "content": "Hello from Python"}]
seen = {}

seen["models"] = [one.id for one in client.models.list()]
seen["model"] = client.models.retrieve(model).id

answer = client.chat.completions.create(model=model, messages=ask)
seen["plain"] = answer.choices[0].message.content
seen["tokens"] = answer.usage.total_tokens
raw = client.chat.completions.with_raw_response.create(model=model, messages=ask)
seen["request_id"] = bool(raw.headers.get("x-request-id"))

pieces = list(client.chat.completions.create(model=model, messages=ask, stream=True))
seen["streamed"] = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
seen["usage_unasked"] = any(piece.usage for piece in pieces)
pieces = list(client.chat.completions.create(model=model, messages=ask, stream=True, stream_options={"include_usage": True}))
seen["usage_asked"] = pieces[-1].usage.total_tokens

# The helper that puts a stream together again.
with client.chat.completions.stream(model=model, messages=ask) as stream:
    for event in stream:
        pass
    seen["helper"] = stream.get_final_completion().choices[0].message.content

response = client.responses.create(model=model, input="Hello from Python")
seen["response"] = response.output_text
with client.responses.stream(model=model, input="Hello from Python") as stream:
    for event in stream:
        pass
    seen["response_streamed"] = stream.get_final_response().output_text

seen["vectors"] = [one.embedding[1] for one in client.embeddings.create(model="embed", input=["one", "two"]).data]
seen["pictures"] = len(client.images.generate(model="paint", prompt="a deck", n=2).data)
seen["heard"] = client.audio.transcriptions.create(model="hear", file=("said.ogg", b"spoken words")).text
seen["translated"] = client.audio.translations.create(model="hear", file=("said.ogg", b"gesprochen")).text
seen["said"] = client.audio.speech.create(model="speak", voice="alloy", input="hello there").content.decode()

# Tools: a call of one, what it said, and the helper that puts a streamed call together.
function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}, "strict": True}
tools = [{"type": "function", "function": function}]
ask_tool = [{"role": "user", "content": '[[call={"city": "Kyoto"}]]'}]
choice = client.chat.completions.create(model=model, messages=ask_tool, tools=tools).choices[0]
call = choice.message.tool_calls[0]
seen["tool"] = [choice.finish_reason, call.function.name, call.function.arguments]
told = [*ask_tool, choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
seen["tool_told"] = client.chat.completions.create(model=model, messages=told, tools=tools).choices[0].message.content
with client.chat.completions.stream(model=model, messages=ask_tool, tools=tools) as stream:
    for event in stream:
        pass
    call = stream.get_final_completion().choices[0].message.tool_calls[0]
seen["tool_streamed"] = ["tool_calls", call.function.name, call.function.arguments]

# Over its limit a key is told so, and the client comes back when it may.
limited = openai.OpenAI(base_url=base_url, api_key=limited_key, max_retries=0)
try:
    for _ in range(100):
        limited.chat.completions.create(model=model, messages=ask)
except openai.RateLimitError as error:
    headers = error.response.headers
    seen["limited"] = [error.status_code, error.code, error.type]
    seen["limited_headers"] = [headers.get("x-ratelimit-limit-requests"), headers.get("x-ratelimit-remaining-requests")]
answers = []
http = openai.DefaultHttpxClient(event_hooks={"response": [lambda answer: answers.append([answer.status_code, answer.headers.get("retry-after")])]})
began = time.monotonic()
openai.OpenAI(base_url=base_url, api_key=limited_key, max_retries=5, http_client=http).chat.completions.create(model=model, messages=ask)
seen["retried"] = answers
seen["waited"] = time.monotonic() - began

failures = {}
for name, wrong in {
    "no_model": lambda: client.chat.completions.create(model="no-such-model", messages=ask),
    "bad_key": lambda: openai.OpenAI(base_url=base_url, api_key="bd-wrong", max_retries=0).models.list(),
    "no_such_kind": lambda: client.embeddings.create(model=model, input="x"),
    "bad_request": lambda: client.chat.completions.create(model="", messages=ask),
    "overloaded": lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "[[status=500]]"}]),
}.items():
    try:
        wrong()
        failures[name] = "nothing"
    except openai.APIStatusError as error:
        failures[name] = [type(error).__name__, error.status_code, error.code]
seen["failures"] = failures
print(json.dumps(seen))
