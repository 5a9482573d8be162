// What the official `openai` package does with a deck: run by server/tests/it/clients.rs. Prints what it saw as JSON.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The second key may ask a few times a minute.
const [baseURL, apiKey, model, limitedKey, modules] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(pathToFileURL(createRequire(`${modules}/`).resolve('openai')).href);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: 'user', content: 'Hello from Node' }];
const seen = {};

seen.models = [];
for await (const one of client.models.list()) seen.models.push(one.id);
seen.model = (await client.models.retrieve(model)).id;

const answer = await client.chat.completions.create({ model, messages });
seen.plain = answer.choices[0].message.content;
seen.tokens = answer.usage.total_tokens;
seen.request_id = Boolean(answer._request_id);

seen.streamed = '';
seen.usage_unasked = false;
for await (const piece of await client.chat.completions.create({ model, messages, stream: true })) {
  seen.streamed += piece.choices[0]?.delta?.content ?? '';
  if (piece.usage) seen.usage_unasked = true;
}
for await (const piece of await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } })) {
  seen.usage_asked = piece.usage?.total_tokens;
}

// The helper that puts a stream together again.
seen.helper = (await client.chat.completions.stream({ model, messages }).finalChatCompletion()).choices[0].message.content;

const input = 'Hello from Node';
seen.response = (await client.responses.create({ model, input })).output_text;
seen.response_streamed = (await client.responses.stream({ model, input }).finalResponse()).output_text;

seen.vectors = (await client.embeddings.create({ model: 'embed', input: ['one', 'two'] })).data.map((one) => one.embedding[1]);
seen.pictures = (await client.images.generate({ model: 'paint', prompt: 'a deck', n: 2 })).data.length;
const file = await toFile(Buffer.from('spoken words'), 'said.ogg');
seen.heard = (await client.audio.transcriptions.create({ model: 'hear', file })).text;
const foreign = await toFile(Buffer.from('gesprochen'), 'said.ogg');
seen.translated = (await client.audio.translations.create({ model: 'hear', file: foreign })).text;
seen.said = await (await client.audio.speech.create({ model: 'speak', voice: 'alloy', input: 'hello there' })).text();

// Tools: a call of one, what it said, and the helper that puts a streamed call together.
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false };
const tools = [{ type: 'function', function: { name: 'weather', parameters, strict: true } }];
const askTool = [{ role: 'user', content: '[[call={"city": "Kyoto"}]]' }];
const choice = (await client.chat.completions.create({ model, messages: askTool, tools })).choices[0];
const call = choice.message.tool_calls[0];
seen.tool = [choice.finish_reason, call.function.name, call.function.arguments];
const told = [...askTool, choice.message, { role: 'tool', tool_call_id: call.id, content: 'rain' }];
seen.tool_told = (await client.chat.completions.create({ model, messages: told, tools })).choices[0].message.content;
const whole = (await client.chat.completions.stream({ model, messages: askTool, tools }).finalChatCompletion()).choices[0];
const streamed = whole.message.tool_calls[0].function;
seen.tool_streamed = [whole.finish_reason, streamed.name, streamed.arguments];

// Over its limit a key is told so, and the client comes back when it may.
const limited = new OpenAI({ baseURL, apiKey: limitedKey, maxRetries: 0 });
try {
  for (let asked = 0; asked < 100; asked += 1) await limited.chat.completions.create({ model, messages });
} catch (error) {
  if (!(error instanceof OpenAI.RateLimitError)) throw error;
  const header = (name) => error.headers.get(name);
  seen.limited = [error.status, error.code, error.type];
  seen.limited_headers = [header('x-ratelimit-limit-requests'), header('x-ratelimit-remaining-requests')];
}
seen.retried = [];
const noting = async (...request) => {
  const answered = await fetch(...request);
  seen.retried.push([answered.status, answered.headers.get('retry-after')]);
  return answered;
};
const began = performance.now();
const patient = new OpenAI({ baseURL, apiKey: limitedKey, maxRetries: 5, fetch: noting });
await patient.chat.completions.create({ model, messages });
seen.waited = (performance.now() - began) / 1000;

const failures = {
  no_model: () => client.chat.completions.create({ model: 'no-such-model', messages }),
  bad_key: () => new OpenAI({ baseURL, apiKey: 'bd-wrong', maxRetries: 0 }).models.list(),
  no_such_kind: () => client.embeddings.create({ model, input: 'x' }),
  bad_request: () => client.chat.completions.create({ model: '', messages }),
  overloaded: () => client.chat.completions.create({ model, messages: [{ role: 'user', content: '[[status=500]]' }] }),
};
seen.failures = {};
for (const [name, wrong] of Object.entries(failures)) {
  try {
    await wrong();
    seen.failures[name] = 'nothing';
  } catch (error) {
    seen.failures[name] = [error.constructor.name, error.status, error.code];
  }
}
console.log(JSON.stringify(seen));
