// What the page knows. Plain data and the rules that change it; no DOM and no network here.

export const UNFINISHED = new Set(["queued", "in_progress"]);
/** Kinds that answer in the thread; a title, for example, does not. */
const SHOWN_KINDS = new Set(["reply", "regenerate", "welcome", "support"]);

export function newThread(id, draftKey = null, contextType = undefined) {
  return {
    id,
    contextType, // What a new conversation is about; the API says it of one that exists.
    draftKey, // Set until the first message of a new conversation made it exist.
    conversation: null,
    messages: new Map(),
    generations: new Map(),
    turnKeys: new Map(), // user message id → the key its turn had before the API named it
    chosen: new Map(), // turn key → the reply a person paged to
    ratings: new Map(),
    sources: new Map(), // reply id → the entries it was made of, once somebody opened them
    hasOlder: false,
    state: "loading", // loading | ready | missing | failed
  };
}

export function newState() {
  return {
    holder: null,
    feedLive: null, // null before the first try, then true or false
    list: { items: [], query: "", status: "active", hasMore: false, loaded: false, failed: false },
    running: new Map(), // conversation id → set of unfinished generation ids the feed told of
    unread: new Set(),
    stage: null, // the newest stage of an assessment, as the feed told it
    thread: newThread(null),
    outbox: [],
  };
}

const byId = (a, b) => (a.id < b.id ? -1 : 1);

export function addMessages(thread, messages) {
  for (const message of messages) thread.messages.set(message.id, message);
}

/** Takes the API's word for a generation, and keeps what only the live stream knows. */
export function addGeneration(thread, generation) {
  if (!SHOWN_KINDS.has(generation.kind)) return null;
  const known = thread.generations.get(generation.id);
  const live = UNFINISHED.has(generation.status) ? (known?.live ?? newLive()) : null;
  // A list read a moment ago must not bring an ended generation back to life.
  if (known && !UNFINISHED.has(known.status) && live) return known;
  const merged = { ...known, ...generation, live };
  if (generation.assistant_message) {
    thread.messages.set(generation.assistant_message.id, generation.assistant_message);
    delete merged.assistant_message;
  }
  thread.generations.set(merged.id, merged);
  return merged;
}

function newLive() {
  return { cursor: null, text: "", version: 0, attempt: 0, notice: null, restarts: 0, cut: false, stopping: false };
}

/** Forgets the text so far. The version tells the view to clear what it has drawn. */
export function clearText(live) {
  live.text = "";
  live.version += 1;
}

/** Applies one event of a generation that the thread knows. */
export function applyEvent(thread, event) {
  const generation = thread.generations.get(event.generation_id);
  if (!generation?.live) return generation;
  const { live } = generation;
  const { data } = event;
  switch (event.type) {
    case "generation.queued":
      if (live.text) clearText(live);
      generation.status = "queued";
      generation.queue_position = data.position;
      generation.estimated_response_time_ms = data.estimated_response_time_ms;
      break;
    case "generation.in_progress":
      // A new attempt starts over, also when the worker before it died without a word.
      if (live.attempt && data.attempt !== live.attempt && live.notice?.kind !== "retrying") {
        live.restarts += 1;
        live.notice = { kind: "taken_over" };
        clearText(live);
      }
      live.attempt = data.attempt;
      generation.status = "in_progress";
      generation.attempts = data.attempt;
      generation.model = data.model;
      generation.timings = { ...generation.timings, started_at: event.at };
      break;
    case "generation.delta":
      live.text += data.text;
      live.notice = null;
      generation.status = "in_progress";
      break;
    case "generation.interim":
      live.notice = { kind: "interim", message: data.message };
      break;
    case "generation.retrying":
      live.restarts += 1;
      live.notice = { kind: "retrying", ...data, hadText: live.text !== "" };
      clearText(live);
      break;
    case "generation.completed":
      thread.messages.set(data.assistant_message.id, data.assistant_message);
      generation.assistant_message_id = data.assistant_message.id;
      generation.usage = data.usage;
      end(generation, "completed", event.at);
      break;
    case "generation.failed":
      generation.error = data.error;
      end(generation, "failed", event.at);
      break;
    case "generation.cancelled":
      generation.partial_content = data.partial_content;
      end(generation, "cancelled", event.at);
      break;
  }
  return generation;
}

function end(generation, status, at) {
  generation.status = status;
  generation.timings = { ...generation.timings, finished_at: at };
  generation.live = null;
}

export function unfinished(thread) {
  return [...thread.generations.values()].filter((generation) => generation.live).sort(byId);
}

/** The generation whose turn it is: one of a conversation runs at a time, in the order accepted. */
export function headOf(thread) {
  const waiting = unfinished(thread);
  return waiting.find((generation) => generation.status === "in_progress") ?? waiting[0] ?? null;
}

/** The newest message that the API named; older pages and catching up both start from ids. */
export function newestMessageId(thread) {
  let newest = null;
  for (const id of thread.messages.keys()) if (newest === null || id > newest) newest = id;
  return newest;
}

export function oldestMessageId(thread) {
  let oldest = null;
  for (const id of thread.messages.keys()) if (oldest === null || id < oldest) oldest = id;
  return oldest;
}

/** The thread as it is read: each of the person's messages with every reply it got, and what is still on its way out. */
export function turnsOf(thread, outbox) {
  const turns = [];
  const byMessage = new Map();
  const answered = new Map();
  for (const generation of thread.generations.values()) {
    if (generation.assistant_message_id) answered.set(generation.assistant_message_id, generation);
  }
  const newTurn = (key, user) => {
    const turn = { key, user, replies: [], draft: null, askedAgain: false };
    turns.push(turn);
    return turn;
  };
  for (const message of [...thread.messages.values()].sort(byId)) {
    if (message.sender_type !== "assistant") {
      byMessage.set(message.id, newTurn(thread.turnKeys.get(message.id) ?? message.id, message));
      continue;
    }
    const generation = answered.get(message.id) ?? null;
    const parent = message.parent_message_id ?? generation?.user_message_id;
    const turn = byMessage.get(parent) ?? newTurn(message.id, null);
    turn.replies.push({ key: generation?.id ?? message.id, message, generation });
  }
  for (const generation of thread.generations.values()) {
    const stored = generation.assistant_message_id && thread.messages.has(generation.assistant_message_id);
    if (stored || generation.status === "completed" || generation.status === "incomplete") continue;
    const turn = byMessage.get(generation.user_message_id);
    if (turn) turn.replies.push({ key: generation.id, message: null, generation });
    else if (!generation.user_message_id && generation.live) {
      newTurn(generation.id, null).replies.push({ key: generation.id, message: null, generation });
    }
  }
  for (const turn of turns) {
    if (turn.replies.length > 1) turn.replies.sort((a, b) => (orderOf(a) < orderOf(b) ? -1 : 1));
  }
  for (const item of outbox) {
    if (item.conversationId ? item.conversationId === thread.id : item.draftKey === thread.draftKey) {
      newTurn(item.key, { content: item.content, sender_type: "user", created_at: item.at }).draft = item;
    }
  }
  // A question that stands once more further down was asked again.
  const later = new Set();
  for (const turn of turns.toReversed()) {
    turn.askedAgain = later.has(turn.user?.content);
    later.add(turn.user?.content);
  }
  return turns;
}

/** Replies sort in the order they were asked for; ids of both kinds grow with time. */
function orderOf(reply) {
  return reply.generation?.id ?? reply.message.id;
}

export function selectedReply(thread, turn) {
  const key = thread.chosen.get(turn.key);
  return turn.replies.find((reply) => reply.key === key) ?? turn.replies.at(-1) ?? null;
}

/** Puts a conversation where it belongs in the list that is shown, or takes it out. */
export function placeConversation(list, conversation) {
  const at = list.items.findIndex((item) => item.id === conversation.id);
  if (at >= 0) list.items.splice(at, 1);
  const fits = conversation.status === list.status && (at >= 0 || !list.query);
  if (!fits) return;
  list.items.push(conversation);
  list.items.sort((a, b) => (lastActivity(a) > lastActivity(b) ? -1 : 1));
}

export function lastActivity(conversation) {
  return conversation.last_message_at ?? conversation.created_at;
}

/** Keeps count of what runs where, for the marks in the list. Returns whether a mark changed. */
export function noteActivity(state, event) {
  const { conversation_id: conversation, generation_id: generation } = event;
  const set = state.running.get(conversation) ?? new Set();
  const before = `${set.size > 0} ${state.unread.has(conversation)}`;
  if (event.type === "generation.queued" || event.type === "generation.in_progress") set.add(generation);
  else if (/\.(completed|failed|cancelled)$/.test(event.type)) {
    set.delete(generation);
    // A title also completes, but brings no message that one could have missed.
    if (event.data.assistant_message && state.thread.id !== conversation) state.unread.add(conversation);
  } else return false;
  if (set.size) state.running.set(conversation, set);
  else state.running.delete(conversation);
  return before !== `${set.size > 0} ${state.unread.has(conversation)}`;
}
