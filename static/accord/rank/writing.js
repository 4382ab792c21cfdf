// «Write a better one»: an answer of one's own to the prompt on screen, kept as a draft until the server has it.

import { isSignedOut, post } from "./outbox.js";
import { say } from "./words.js";

/** Returns what opens the dialog for a comparison. */
export function prepareWriting(dialog, url, drafts, { tell, complain }) {
  const field = dialog.querySelector("textarea");
  let comparison = null;
  const name = () => `w${comparison}`;
  field.addEventListener("input", () => drafts.keep(name(), field.value));
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "keep" && field.value.trim()) send(name(), [["comparison", comparison], ["text", field.value]]);
  });

  async function send(draft, fields) {
    const response = await post(url, fields).catch(() => null);
    if (!response) return tell(say("write-offline"), "warn");
    if (isSignedOut(response)) return tell(say("sign-in"), "warn");
    if (!response.ok) return complain(await response.text());
    drafts.drop(draft);
    tell(say("thanks"), "done");
  }

  return (id) => {
    comparison = id;
    field.value = drafts.of(name()) ?? "";
    dialog.returnValue = "";
    dialog.showModal();
  };
}
