-- Whether somebody who knows has said whose an assessment is. Where nobody did, who asked for it first holds it, and the
-- word of the analysis takes it from them. No old row is vouched for: the next event of each does.
ALTER TABLE chat.assessments ADD COLUMN vouched boolean NOT NULL DEFAULT false;
