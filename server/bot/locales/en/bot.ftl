# Everything the bot says by itself. Each entry has one function in src/texts.rs.
# Numbers come twice: as a number to choose the plural by, and as text (…-shown) to print.

hello = Hello!
hello-name = Hello, { $name }!
start = I am { $bot }. Write to me as you would to a person: I answer with the help of an AI model and remember our conversation.
start-hint = /new begins a new conversation, /help tells what else I can do.

help = What I can do:
help-text = Anything else you write is a question to the model.

command-start = Say hello
command-help = What the bot can do
command-new = Begin a new conversation
command-model = See or choose the model
command-usage = What is left of your limits
command-stop = Stop the answer being written

new-conversation = A new conversation begins. I no longer think of what was said before.
stopped = Stopped.
nothing-to-stop = Nothing is being written right now.
no-payments = This bot takes no payments yet. You have not been charged.
stopped-suffix = ⏹ Stopped. Write on whenever you like.
length-suffix = ⚠ This is as long as one answer may be. Ask me to go on.
filtered-suffix = ⚠ The model's filter has held back the rest.
cut-suffix = ⚠ The answer broke off here. Ask me to go on, or ask again.

usage = Your plan: { $plan }
usage-no-limits = There are no limits on it.
usage-line = { $what }: { $used } of { $limit }, starts again { $resets }
usage-line-unused = { $what }: { $used } of { $limit }
usage-line-unknown = { $what }: { $limit } at most; how many are used is not known now
usage-line-free = { $what }: { $used }, no limit
usage-line-uncounted = { $what }: no limit

measure-messages-per-minute = Messages this minute
measure-messages-per-day = Messages today
measure-tokens-per-day = Tokens today
measure-money-per-month = Money this month
measure-messages-per-month = Messages this month
measure-messages-total = Messages in all
measure-tokens-per-minute = Tokens this minute
measure-tokens-per-month = Tokens this month
measure-tokens-total = Tokens in all
measure-money-per-minute = Money this minute
measure-money-per-day = Money today
measure-money-total = Money in all
measure-images-per-minute = Images this minute
measure-images-per-day = Images today
measure-images-per-month = Images this month
measure-images-total = Images in all

models = Models you can choose from:
models-current = { $model } (chosen)
models-hint = To choose one: /model and its name.
models-none = There is no model to choose from at the moment.
model-set = From now on { $model } answers.
model-unknown = I do not know a model called "{ $model }". /model lists those that there are.
model-not-in-plan = { $model } is not part of your plan ({ $plan }). /model lists what is.
model-instead = ℹ { $chosen } is no longer part of your plan: { $model } has answered. /model lists what you can choose.

limit-messages-per-minute = { $count ->
    [0] Your plan allows no messages.
    [one] That was quick: your plan allows { $shown } message a minute.
   *[other] That was quick: your plan allows { $shown } messages a minute.
}
limit-messages-per-day = { $count ->
    [0] Your plan allows no messages.
    [one] Your { $shown } message of today is used up.
   *[other] Your { $shown } messages of today are used up.
}
limit-tokens-per-day = { $count ->
    [0] Your plan allows no tokens.
    [one] What is left of your { $shown } token of today does not suffice for an answer.
   *[other] What is left of your { $shown } tokens of today does not suffice for an answer.
}
limit-money-per-month = What is left of your { $shown } of this month does not suffice for an answer.
limit-own = What is left of your limit does not suffice ({ $what }: { $shown }).
limit-bot = This bot has used up what it may use ({ $what }).
limit-model = This model has used up what it may use ({ $what }). Choose another one with /model.
limit-key = This API key has used up what it may use ({ $what }).
limit-deck = All bots here have used up what they may use together ({ $what }).
limit-resets = You can go on { $in } ({ $at }).

in-seconds = { $count ->
    [one] in { $shown } second
   *[other] in { $shown } seconds
}
in-minutes = { $count ->
    [one] in { $shown } minute
   *[other] in { $shown } minutes
}
in-hours = { $count ->
    [one] in { $shown } hour
   *[other] in { $shown } hours
}
in-days = { $count ->
    [one] in { $shown } day
   *[other] in { $shown } days
}

failed-limit-minute = You have written more messages than your plan allows in a minute. Wait a minute and ask again.
failed-limit-day = Your messages of today are used up. They start again at midnight.
failed-limit-month = Your messages of this month are used up. They start again on the first day of the next month.
failed-limit-tokens = Your tokens are used up for now. /usage tells when they start again.
failed-limit-money = Your money is used up for now. /usage tells when it starts again.
failed-limit-images = Your images are used up for now. /usage tells when they start again.
failed-limit-total = What you may use in all is used up.
failed-limit-key = This API key has used up what it may use. Try again later.
failed-limit-bot = This bot has used up what it may use. Try again later.
failed-limit-model = This model has used up what it may use. Choose another one with /model.
failed-limit-deck = All bots here have used up what they may use together. Try again later.
failed-ai-timeout = The model took too long to answer. Ask again in a minute.
failed-ai-busy = The model has too much to do just now. Ask again in a minute.
failed-ai-auth = The model does not let me in. The people who run this bot have to look at it; your question was not charged.
failed-ai-refused = The model has refused this question. Put it in other words, or choose another model with /model.
failed-ai-context = This conversation has become too long for the model. Begin a new one with /new.
failed-ai-empty = The model had nothing to say. Ask again, or put it in other words.
failed-ai-down = The model cannot be reached. Ask again in a few minutes.
failed-ai-cut = The answer broke off. Ask me to go on, or ask again.
failed-input-too-long = That is more than the model can read at once. Shorten it, or begin a new conversation with /new.
failed-blocked = You cannot use this bot at the moment. If you think that is a mistake, write to the people who run it.
failed-no-model = That model is no longer there. Choose another one with /model.
failed-input = I did not understand that. /help tells what I can do.
failed-throttled = That was too often. Wait a little and try again.
failed-telegram = Telegram did not take the answer. Ask again.
failed-internal = Something went wrong on my side. It has been noted. Ask again; if it happens again, send the code to the people who run this bot.
failed-other = That did not work. Try again; if it happens again, send the code to the people who run this bot.

only-text = I can read only text so far. Write to me what it is about.

late = { $count ->
    [one] I was away for a while, and your message came in the meantime. If it still matters, please ask me again.
   *[other] I was away for a while, and { $shown } messages came in the meantime. Please ask me again what still matters.
}
