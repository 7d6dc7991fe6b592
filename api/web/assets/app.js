// The console at work: it keeps the store, the API and the view in step.

import { Api, newKey } from "./api.js";
import { Composer } from "./composer.js";
import { followGeneration, openFeed } from "./events.js";
import { conversationMenu, setStatus } from "./manage.js";
import { Outbox } from "./outbox.js";
import { Sidebar, toast } from "./sidebar.js";
import { renderStage } from "./stages.js";
import * as store from "./store.js";
import { ThreadView } from "./view.js";

const $ = (id) => document.getElementById(id);
const PAGE = 40;
const LIST_PAGE = 40;
/** The newest this many tell what each reply cost; all unfinished ones are among them. */
const GENERATIONS = 100;
const AGAIN_MS = 3000;
/** How often the lists are read again while there is no feed to tell of changes. */
const POLL_MS = 15_000;
/** How often while there is one: a change of a conversation has no log, so a lost event of that kind stays lost. */
const CHECK_MS = 60_000;

export class App {
  constructor(token, holder, onUnauthorised) {
    this.state = store.newState();
    this.state.holder = holder;
    this.api = new Api(token, onUnauthorised);
    this.outbox = new Outbox(this.api, holder.user, {
      changed: () => this.draw(),
      created: (item, conversation) => this.onCreated(item, conversation),
      accepted: (item, answer) => this.onAccepted(item, answer),
    });
    this.state.outbox = this.outbox.items;
    this.following = null; // {id, stop}
    this.stopped = false;
    this.timers = [];
  }

  start() {
    this.view = new ThreadView(this.actions());
    this.side = new Sidebar(this.actions());
    this.composer = new Composer((content, interrupt) => this.send(content, interrupt));
    $("new").addEventListener("click", () => this.newConversation());
    $("desk").addEventListener("click", () => this.newConversation("#desk"));
    $("restore").addEventListener("click", () => setStatus(this, this.state.thread.conversation, "active"));
    $("stop").addEventListener("click", () => {
      const head = store.headOf(this.state.thread);
      if (head) this.stopGeneration(head);
      this.composer.focus();
    });
    this.closeFeed = openFeed(this.api, {
      event: (event) => this.onFeed(event),
      open: () => this.catchUp(),
      state: (live) => {
        this.state.feedLive = live;
        this.draw();
      },
    });
    this.timers.push(
      setInterval(() => store.unfinished(this.state.thread).length && this.draw(), 1000),
      setInterval(() => this.catchUpIfDue(), POLL_MS),
    );
    this.onVisible = () => this.catchUpIfDue(2000);
    document.addEventListener("visibilitychange", this.onVisible);
    this.tabs = new BroadcastChannel("balas");
    this.tabs.onmessage = () => this.catchUpSoon();
    this.loadList();
    this.outbox.pump();
  }

  stop() {
    this.stopped = true;
    this.closeFeed?.();
    this.following?.stop();
    this.outbox.stop();
    this.tabs?.close();
    this.timers.forEach(clearInterval);
    document.removeEventListener("visibilitychange", this.onVisible);
  }

  /** Draws once in the next frame, however often it is asked to. */
  draw() {
    if (this.drawing || this.stopped) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.drawNow();
    });
  }

  drawNow() {
    this.side.render(this.state);
    renderStage(this.state);
    this.view.render(this.state);
    const { thread } = this.state;
    this.composer.update({ busy: this.view.busy, ready: !thread.id || thread.state === "ready" });
  }

  // --- conversations -------------------------------------------------------------------------------------------

  async loadList(more = false) {
    const { list } = this.state;
    const asked = `${list.status} ${list.query}`;
    const offset = more ? list.items.length : 0;
    const limit = more ? LIST_PAGE : Math.min(100, Math.max(LIST_PAGE, list.items.length));
    const params = new URLSearchParams({ status: list.status, limit, offset });
    if (list.query) params.set("q", list.query);
    try {
      const page = await this.api.get(`/conversations?${params}`);
      if (asked !== `${list.status} ${list.query}`) return;
      const seen = new Set(more ? list.items.map(({ id }) => id) : []);
      list.items = [...(more ? list.items : []), ...page.conversations.filter(({ id }) => !seen.has(id))];
      list.hasMore = page.pagination.has_more;
      list.loaded = true;
      list.failed = false;
      const { thread } = this.state;
      thread.conversation = list.items.find(({ id }) => id === thread.id) ?? thread.conversation;
    } catch (error) {
      if (error.status === 401) return;
      list.failed = true;
      this.later(() => list.failed && this.loadList());
    }
    this.draw();
  }

  later(work, ms = AGAIN_MS) {
    setTimeout(() => this.stopped || work(), ms);
  }

  /** Opens what the address names: `#c=<conversation>`, a new question to the help desk, or a new conversation. */
  route() {
    const params = new URLSearchParams(location.hash.slice(1));
    const id = params.get("c");
    const contextType = params.has("desk") ? "support" : undefined;
    const { thread } = this.state;
    if (id ? id === thread.id : thread.draftKey && !thread.id && thread.contextType === contextType) return;
    this.following?.stop();
    this.following = null;
    this.state.thread = store.newThread(id, id ? null : this.draftKey(contextType), contextType);
    this.state.unread.delete(id);
    if (id) this.loadThread(this.state.thread);
    else this.state.thread.state = "ready";
    this.composer.open(id);
    this.drawNow();
    if (matchMedia("(hover: hover)").matches) this.composer.focus();
  }

  /** A message that is on its way into a conversation that does not exist yet is still shown after a reload. */
  draftKey(contextType) {
    return this.state.outbox.find((item) => !item.conversationId && item.contextType === contextType)?.draftKey ?? newKey();
  }

  newConversation(hash = "") {
    this.side.closeDrawer();
    if (location.hash !== hash) location.hash = hash;
    else this.route();
    this.composer.focus();
  }

  async loadThread(thread) {
    try {
      const [{ conversation, messages }, { generations }] = await Promise.all([
        this.api.get(`/conversations/${encodeURIComponent(thread.id)}?messages=${PAGE}`),
        this.api.get(`/generations?conversation_id=${encodeURIComponent(thread.id)}&limit=${GENERATIONS}`),
      ]);
      if (this.state.thread !== thread) return;
      thread.conversation = conversation;
      store.addMessages(thread, messages);
      thread.hasOlder = messages.length >= PAGE;
      thread.state = "ready";
      this.takeGenerations(thread, generations);
    } catch (error) {
      if (error.status === 401 || this.state.thread !== thread) return;
      const missing = error.status === 404 || error.status === 400 || error.status === 422;
      thread.state = missing ? "missing" : "failed";
      if (!missing) this.later(() => this.state.thread === thread && this.loadThread(thread));
    }
    this.draw();
  }

  takeGenerations(thread, generations) {
    for (const read of generations) {
      const generation = store.addGeneration(thread, read);
      // It ended between the two reads: its reply is not among the messages yet.
      const missed = generation?.assistant_message_id && thread.messages.has(generation.user_message_id) && !thread.messages.has(generation.assistant_message_id);
      if (missed) this.refresh(thread, generation.id);
    }
    this.followHead();
  }

  async loadOlder() {
    const { thread } = this.state;
    if (!thread.hasOlder || thread.loadingOlder || thread.state !== "ready") return;
    thread.loadingOlder = true;
    try {
      const page = await this.api.get(`/conversations/${thread.id}/messages?limit=${PAGE}&before_id=${store.oldestMessageId(thread)}`);
      store.addMessages(thread, page.messages);
      thread.hasOlder = page.pagination.has_more && page.messages.length > 0;
      if (this.state.thread === thread) this.view.renderInPlace(this.state);
    } catch {
      // The button stays; reaching it again tries again.
    }
    thread.loadingOlder = false;
  }

  /** Reads what happened while nobody told us: after the feed was cut, or when another tab wrote something. */
  async catchUp() {
    this.caughtUpAt = Date.now();
    this.loadList();
    const { thread } = this.state;
    if (!thread.id || thread.state !== "ready") return;
    // Our own message may be on its way in; its answer names it, and only then can it be recognised here.
    if (this.outbox.sendingTo(thread.id)) {
      this.later(() => this.catchUpSoon(), 300);
      return;
    }
    try {
      const { generations } = await this.api.get(`/generations?conversation_id=${thread.id}&limit=${GENERATIONS}`);
      for (let more = true; more; ) {
        const after = store.newestMessageId(thread);
        const page = await this.api.get(`/conversations/${thread.id}/messages?limit=100${after ? `&after_id=${after}` : ""}`);
        store.addMessages(thread, page.messages);
        more = Boolean(after) && page.pagination.has_more && page.messages.length > 0;
      }
      if (this.state.thread !== thread) return;
      this.takeGenerations(thread, generations);
    } catch (error) {
      if (error.status === 404 && this.state.thread === thread) this.lose(thread);
    }
    this.draw();
  }

  /** The open conversation was deleted, here or elsewhere: nothing of it stays on the page. */
  lose(thread) {
    this.following?.stop();
    this.following = null;
    this.state.thread = store.newThread(thread.id, null);
    this.state.thread.state = "missing";
  }

  catchUpSoon() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.stopped || this.catchUp(), 120);
  }

  catchUpIfDue(after = this.state.feedLive ? CHECK_MS : 0) {
    if (!document.hidden && Date.now() - (this.caughtUpAt ?? 0) > after) this.catchUp();
  }

  // --- generations ---------------------------------------------------------------------------------------------

  /** Follows the one generation of the open conversation whose turn it is: one connection, however many wait. */
  followHead() {
    const { thread } = this.state;
    const head = store.headOf(thread);
    if (this.following?.id === head?.id) return;
    this.following?.stop();
    this.following = null;
    if (!head) return;
    const { live } = head;
    const stop = followGeneration(this.api, head.id, live.cursor, {
      event: (event) => {
        live.cursor = event.id;
        this.onGenerationEvent(thread, event);
      },
      trouble: (cut) => {
        live.cut = cut;
        this.draw();
      },
      restart: () => store.clearText(live),
      gone: () => this.refresh(thread, head.id),
    });
    this.following = { id: head.id, stop };
  }

  onGenerationEvent(thread, event) {
    const generation = store.applyEvent(thread, event);
    if (generation && !generation.live) {
      this.refresh(thread, generation.id);
      this.followHead();
    }
    this.draw();
  }

  /** Asks for one generation: what it cost and how it ended is known in full only there. */
  async refresh(thread, id) {
    try {
      const generation = store.addGeneration(thread, await this.api.get(`/generations/${id}`));
      if (this.state.thread === thread && generation) this.followHead();
    } catch (error) {
      if (error.status === 404) thread.generations.delete(id);
    }
    this.draw();
  }

  onFeed(event) {
    const { state } = this;
    const { thread } = state;
    const here = event.conversation_id === thread.id;
    if (event.type === "assessment.stage") {
      state.stage = { ...event.data, conversationId: event.conversation_id };
      this.loadList();
      if (here) this.catchUpSoon();
      this.draw();
      return;
    }
    if (event.type === "conversation.updated") {
      const { conversation } = event.data;
      store.placeConversation(state.list, conversation);
      if (conversation.status === "deleted") {
        state.running.delete(conversation.id);
        state.unread.delete(conversation.id);
        if (here) this.lose(thread);
      } else if (here) {
        thread.conversation = conversation;
        // A person of the help desk may have answered; no generation tells of that.
        if (conversation.context_type === "support") this.catchUpSoon();
      }
      this.draw();
      return;
    }
    const listed = state.list.items.find(({ id }) => id === event.conversation_id);
    if (event.type === "generation.queued" && listed) store.placeConversation(state.list, { ...listed, last_message_at: event.at });
    if (store.noteActivity(state, event)) {
      if (!listed && !state.list.query) this.loadList();
      this.draw();
    }
    if (!here || event.generation_id === this.following?.id) return;
    const known = thread.generations.get(event.generation_id);
    if (!known) {
      if (event.type !== "generation.delta") this.catchUpSoon();
    } else if (event.type === "generation.in_progress") {
      known.status = "in_progress";
      this.followHead();
      this.draw();
    } else if (event.type !== "generation.delta") this.onGenerationEvent(thread, event);
  }

  async stopGeneration(generation) {
    const { thread } = this.state;
    generation.live.stopping = true;
    this.draw();
    try {
      store.addGeneration(thread, await this.api.send("POST", `/generations/${generation.id}/cancel`));
    } catch (error) {
      if (generation.live) generation.live.stopping = false;
      // It ended by itself a moment before; its own event says how.
      if (error.status !== 409) toast("The reply could not be stopped.", "Try again", () => generation.live && this.stopGeneration(generation));
    }
    this.followHead();
    this.draw();
  }

  async regenerate(turn) {
    const { thread } = this.state;
    const newest = turn.replies.findLast((reply) => reply.message);
    try {
      const answer = await this.api.post(`/conversations/${thread.id}/messages/${newest.message.id}/regenerate`, {});
      this.takeAnswer(thread, answer);
      thread.chosen.delete(turn.key);
    } catch (error) {
      toast(`No new reply: ${error.message}.`);
    }
    this.draw();
  }

  takeAnswer(thread, answer) {
    if (answer.user_message) store.addMessages(thread, [answer.user_message]);
    store.addGeneration(thread, answer.generation);
    if (this.state.thread === thread) this.followHead();
  }

  // --- sending -------------------------------------------------------------------------------------------------

  send(content, interrupt) {
    const { thread } = this.state;
    if (thread.id && thread.state !== "ready") return false;
    this.outbox.add({ conversationId: thread.id, draftKey: thread.draftKey, contextType: thread.contextType, content, interrupt: interrupt && Boolean(store.headOf(thread)) });
    this.drawNow();
    this.view.follow();
    return true;
  }

  onCreated(item, conversation) {
    const { thread, list } = this.state;
    store.placeConversation(list, conversation);
    if (thread.draftKey === item.draftKey && !thread.id) {
      thread.id = conversation.id;
      thread.conversation = conversation;
      history.replaceState(null, "", `#c=${conversation.id}`);
      this.side.toTop();
      this.composer.rename(conversation.id);
    }
    this.draw();
  }

  onAccepted(item, answer) {
    const { thread } = this.state;
    if (thread.id === item.conversationId) {
      thread.turnKeys.set(answer.user_message.id, item.key);
      this.takeAnswer(thread, answer);
    }
    this.draw();
  }

  // --- what the view may ask for --------------------------------------------------------------------------------

  actions() {
    return {
      skewMs: () => this.api.skewMs,
      loadOlder: () => this.loadOlder(),
      loadMore: () => this.state.list.hasMore && this.loadList(true),
      stop: (generation) => this.stopGeneration(generation),
      regenerate: (turn) => this.regenerate(turn),
      mayAskAgain: (turn, generation) =>
        this.state.thread.conversation?.status === "active" && Boolean(turn.user) && generation === turn.replies.at(-1).generation &&
        (generation.status === "cancelled" || (generation.status === "failed" && generation.error?.retryable)),
      askAgain: (turn) => this.askAgain(turn),
      page: (turn, key) => {
        this.state.thread.chosen.set(turn.key, key);
        this.draw();
      },
      rate: (message, rating) => this.rate(message, rating),
      copy: (message) => navigator.clipboard.writeText(message.content).then(() => toast("Copied."), () => toast("The browser did not allow copying.")),
      hurry: () => this.outbox.hurry(),
      discard: (draft) => this.outbox.discard(draft),
      edit: (draft) => {
        this.outbox.discard(draft);
        this.suggest(draft.content);
      },
      suggest: (text) => this.suggest(text),
      openSources: (message) => this.openSources(message),
      menu: (button, conversation) => conversation && conversationMenu(this, button, conversation),
      find: (query) => {
        this.state.list.query = query;
        this.loadList();
      },
      showList: (status) => {
        Object.assign(this.state.list, { status, items: [], hasMore: false, loaded: false });
        this.loadList();
        this.draw();
      },
    };
  }

  suggest(text) {
    this.composer.put(text);
    this.composer.focus();
  }

  /** A stored reply is regenerated; a question that got none is sent once more. */
  askAgain(turn) {
    if (turn.replies.some((reply) => reply.message)) {
      this.regenerate(turn);
      return;
    }
    const { thread } = this.state;
    this.outbox.add({ conversationId: thread.id, draftKey: thread.draftKey, contextType: thread.contextType, content: turn.user.content });
    this.view.follow();
  }

  /** Reads the entries that a reply was made of, once; all of them come together. */
  openSources(message) {
    const { thread } = this.state;
    if (!thread.sources.has(message.id)) {
      const path = `/conversations/${thread.id}/messages/${message.id}/sources`;
      const reading = this.api.get(path).then((answer) => answer.sources);
      reading.catch(() => thread.sources.delete(message.id));
      thread.sources.set(message.id, reading);
    }
    return thread.sources.get(message.id);
  }

  async rate(message, rating) {
    const { thread } = this.state;
    const before = thread.ratings.get(message.id);
    thread.ratings.set(message.id, rating);
    this.draw();
    // The last rating counts, so they leave in the order they were given.
    const turn = this.rated;
    let leave;
    this.rated = new Promise((resolve) => (leave = resolve));
    await turn;
    try {
      await this.api.post(`/conversations/${thread.id}/messages/${message.id}/feedback`, { rating });
    } catch (error) {
      thread.ratings.set(message.id, before);
      toast(`The rating was not stored: ${error.message}.`);
      this.draw();
    } finally {
      leave();
    }
  }

  /** The API has no event for a deletion; other tabs of this browser hear of it directly. */
  tellOtherTabs() {
    this.tabs.postMessage("changed");
  }
}
