// Renaming, archiving and deleting conversations.

import { forgetDraft } from "./composer.js";
import { ask, openMenu, toast } from "./sidebar.js";
import { placeConversation } from "./store.js";

export function conversationMenu(app, button, conversation) {
  const archived = conversation.status === "archived";
  openMenu(button, [
    ["Rename", () => rename(app, conversation), "rename"],
    [archived ? "Restore" : "Archive", () => setStatus(app, conversation, archived ? "active" : "archived"), "archive"],
    ["Delete", () => remove(app, conversation), "delete"],
  ]);
}

async function rename(app, conversation) {
  const title = await ask({ title: "Rename", value: conversation.title, yes: "Rename" });
  if (title && title !== conversation.title) await change(app, conversation, { title });
}

export async function setStatus(app, conversation, status) {
  const before = conversation.status;
  if (!(await change(app, conversation, { status }))) return;
  if (status === "archived") toast("Archived.", "Undo", () => change(app, conversation, { status: before }));
}

async function change(app, { id }, fields) {
  try {
    const conversation = await app.api.send("PATCH", `/conversations/${id}`, fields);
    placeConversation(app.state.list, conversation);
    if (app.state.thread.id === id) app.state.thread.conversation = conversation;
    app.draw();
    return true;
  } catch (error) {
    toast(`Nothing was changed: ${error.message}.`);
    return false;
  }
}

async function remove(app, { id, title }) {
  const sure = await ask({ title: `Delete “${title}”?`, text: "Its messages disappear at once and cannot be brought back here.", yes: "Delete", danger: true });
  if (!sure) return;
  try {
    await app.api.send("DELETE", `/conversations/${id}`);
  } catch (error) {
    toast(`It was not deleted: ${error.message}.`);
    return;
  }
  app.state.list.items = app.state.list.items.filter((item) => item.id !== id);
  app.state.running.delete(id);
  forgetDraft(id);
  app.tellOtherTabs();
  if (app.state.thread.id === id) app.newConversation();
  app.draw();
}
