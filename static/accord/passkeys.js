// Buttons that use a passkey are shown where the browser has passkeys, and its refusals become a sentence.
if (window.PublicKeyCredential)
  for (const element of document.querySelectorAll("[data-passkey]")) element.hidden = false

document.addEventListener("allauth.error", (event) => {
  event.preventDefault()
  for (const element of document.querySelectorAll("[data-passkey-error]")) element.hidden = false
})
