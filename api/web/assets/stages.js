// How far the newest assessment is, as the feed tells it.

import { setText } from "./dom.js";

const $ = (id) => document.getElementById(id);

export function renderStage({ stage, thread }) {
  const isOpen = Boolean(stage) && stage.conversationId === thread.id;
  const isReady = stage?.stage === "chatbot_ready";
  // Once its conversation is open there is nothing left to wait for.
  $("stage").hidden = !stage || (isReady && isOpen);
  if (!stage) return;
  $("stage").dataset.stage = stage.stage;
  setText($("stage-title"), stage.title);
  setText($("stage-message"), stage.message);
  $("stage-progress").value = stage.progress;
  $("stage-open").href = `#c=${stage.conversationId}`;
  $("stage-open").hidden = !isReady;
}
