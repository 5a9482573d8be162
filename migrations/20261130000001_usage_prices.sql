-- Of every price by which a call was billed, and of every count, the ledger keeps its own: a price that changes later must not change
-- what an old call has cost. Null in lines that a release before has written, as the columns are there without looking at any line.

SELECT lock_gently('usage IN ACCESS EXCLUSIVE MODE');

ALTER TABLE usage
    -- Nano-dollars per million tokens, as billed; of pictures each.
    ADD COLUMN reasoning_price bigint,
    ADD COLUMN image_price bigint,
    ADD COLUMN audio_input_price bigint,
    ADD COLUMN audio_output_price bigint,
    -- Among `prompt_tokens` and `completion_tokens`.
    ADD COLUMN audio_input_tokens bigint,
    ADD COLUMN audio_output_tokens bigint,
    -- What is there is looked at by the next step.
    ADD CONSTRAINT usage_reasoning_price_check CHECK (reasoning_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_image_price_check CHECK (image_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_audio_input_price_check CHECK (audio_input_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_audio_output_price_check CHECK (audio_output_price >= 0) NOT VALID,
    ADD CONSTRAINT usage_audio_input_tokens_check CHECK (audio_input_tokens >= 0) NOT VALID,
    ADD CONSTRAINT usage_audio_output_tokens_check CHECK (audio_output_tokens >= 0) NOT VALID;
