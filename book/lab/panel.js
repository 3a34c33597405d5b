// The settings' form, made from their table.

import { complaint, FIELDS, OPTION_WORDS, valueAt } from "./settings.js";

const element = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const idOf = (path) => `set-${path.replace(".", "-")}`;

function control(path, field) {
  if (field.options) {
    return element("select", { id: idOf(path) }, ...field.options.map((value) => element("option", { value, textContent: OPTION_WORDS[value] ?? value })));
  }
  const limits = { min: field.min, max: field.max, step: field.whole ? 1 : "any", required: true };
  return element("input", { id: idOf(path), type: "number", ...limits });
}

/** Fills the place with a field set for each group; `changed(path, value)` is called with what is in order. */
export function makePanel(place, report, changed) {
  const groups = new Map();
  for (const [path, field] of Object.entries(FIELDS)) {
    if (!groups.has(field.group)) {
      groups.set(field.group, element("fieldset", {}, element("legend", { textContent: field.group })));
      place.append(groups.get(field.group));
    }
    const box = control(path, field), name = element("span", { textContent: field.label });
    if (field.hint) name.append(element("small", { textContent: field.hint }));
    groups.get(field.group).append(element("label", { htmlFor: box.id }, name, box));
    box.addEventListener("change", () => {
      const value = field.options || box.value === "" ? box.value : Number(box.value), wrong = complaint(path, value);
      box.setAttribute("aria-invalid", wrong !== "");
      report(wrong);
      if (!wrong) changed(path, value);
    });
  }
}

/** Shows settings in the form. */
export function fillPanel(settings) {
  for (const path of Object.keys(FIELDS)) {
    const box = document.getElementById(idOf(path));
    box.value = valueAt(settings, path);
    box.setAttribute("aria-invalid", false);
  }
}
