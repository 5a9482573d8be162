-- Staff have said how this bot's messages come in; otherwise BOTDECK_PUBLIC_URL says it anew at every start.
ALTER TABLE bots ADD COLUMN mode_chosen boolean NOT NULL DEFAULT false;
