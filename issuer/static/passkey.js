// Passkeys need a browser's WebAuthn, and that needs a script: this one hands the
// browser what the page asks for, and the answer to the form. It sends nothing
// by itself and decides nothing.
"use strict";

(() => {
  const forms = document.querySelectorAll("form[data-passkey]");
  if (!window.PublicKeyCredential) {
    for (const note of document.querySelectorAll("[data-passkey-none]")) note.hidden = false;
    return;
  }

  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const credentials = (list) => (list || []).map((c) => ({ ...c, id: bytes(c.id) }));

  // WebAuthn sections 5.1.8 and 5.1.9, for browsers that do not have them.
  const options = (form) => {
    const o = JSON.parse(form.dataset.options);
    o.challenge = bytes(o.challenge);
    if (o.user) o.user = { ...o.user, id: bytes(o.user.id) };
    o.excludeCredentials = credentials(o.excludeCredentials);
    o.allowCredentials = credentials(o.allowCredentials);
    return o;
  };

  // WebAuthn section 5.1.1, toJSON.
  const answer = (credential) => {
    const r = credential.response;
    const response = { clientDataJSON: text(r.clientDataJSON) };
    if (r.attestationObject) {
      response.attestationObject = text(r.attestationObject);
      response.transports = r.getTransports ? r.getTransports() : [];
    } else {
      response.authenticatorData = text(r.authenticatorData);
      response.signature = text(r.signature);
      if (r.userHandle) response.userHandle = text(r.userHandle);
    }
    return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response, clientExtensionResults: {} });
  };

  let waiting; // of a browser that offers passkeys in the field for the email
  const send = (form, credential) => {
    form.elements.credential.value = answer(credential);
    form.submit();
  };

  const ask = async (form) => {
    const known = form.querySelector("[data-passkey-known]");
    const failed = form.querySelector("[data-passkey-failed]");
    for (const note of [known, failed]) if (note) note.hidden = true;
    if (waiting) waiting.abort();
    try {
      const publicKey = options(form);
      send(form, await (form.dataset.passkey === "create" ? navigator.credentials.create({ publicKey }) : navigator.credentials.get({ publicKey })));
    } catch (e) {
      const note = e.name === "InvalidStateError" && known ? known : failed;
      if (note) note.hidden = false;
    }
  };

  const offer = async (form) => {
    const can = PublicKeyCredential.isConditionalMediationAvailable;
    if (!can || !(await can.call(PublicKeyCredential))) return;
    waiting = new AbortController();
    try {
      send(form, await navigator.credentials.get({ publicKey: options(form), mediation: "conditional", signal: waiting.signal }));
    } catch {
      // The user did something else.
    }
  };

  for (const form of forms) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask(form);
    });
    if ("passkeyOffer" in form.dataset) offer(form); // not again after one that was refused
  }
})();
