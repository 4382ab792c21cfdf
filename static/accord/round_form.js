// The form of a new round: marks settings that differ from their defaults while they are typed, and resets one at once.

function fieldsOf(setting) {
  return [...setting.querySelectorAll("input, select, textarea")];
}

function valueOf(setting) {
  const fields = fieldsOf(setting);
  const boxes = fields.filter((field) => field.type === "checkbox");
  if (boxes.length) return boxes.filter((box) => box.checked).map((box) => box.value).join(" ");
  return fields[0].value.trim();
}

function isDefault(value, byDefault) {
  if (value === "" || value === byDefault) return true;
  const isNumber = byDefault !== "" && !Number.isNaN(Number(byDefault));
  return isNumber && Number(value) === Number(byDefault);
}

function mark(setting) {
  const value = valueOf(setting);
  const isBox = fieldsOf(setting).some((field) => field.type === "checkbox");
  const isChanged = isBox ? value !== setting.dataset.default : !isDefault(value, setting.dataset.default);
  setting.classList.toggle("changed", isChanged);
  setting.querySelector(".default .tag").hidden = !isChanged;
  setting.querySelector("button.reset").hidden = !isChanged;
}

function reset(setting) {
  const wanted = setting.dataset.default;
  for (const field of fieldsOf(setting)) {
    if (field.type === "checkbox") field.checked = wanted.split(" ").includes(field.value);
    else field.value = wanted;
  }
  mark(setting);
  fieldsOf(setting)[0].focus();
  fieldsOf(setting)[0].dispatchEvent(new Event("change", { bubbles: true })); // the plan follows
}

// At the document, because another recipe replaces the form.
document.addEventListener("input", (event) => {
  const setting = event.target.closest(".setting");
  if (setting) mark(setting);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest(".setting button.reset");
  if (!button) return;
  event.preventDefault();
  reset(button.closest(".setting"));
});
