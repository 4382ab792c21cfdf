// Mathematics: KaTeX is loaded when there is some. Formulas are strangers' text like all the rest: nothing is trusted
// (no links, no classes, no images), sizes are bounded here, and app.css keeps colours and overlaps out.

const OPTIONS = { trust: false, strict: false, maxExpand: 200, maxSize: 5 };

// One that is wider than its place is scrolled, and so by keyboard too. Fonts that come late change its width.
const widths = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const formula = target.closest(".math");
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
});

/** Set every formula in the element; true when there was one. */
export async function setMathematics(root) {
  const formulas = [...root.querySelectorAll(".math:not([data-tex])")];
  if (!formulas.length) return false;
  const { default: katex } = await import("../katex/katex.mjs");
  for (const formula of formulas) {
    if ("tex" in formula.dataset) continue; // somebody else asked too, while it was loaded
    const tex = formula.textContent;
    formula.dataset.tex = formula.title = tex; // what is hidden in a formula can still be read
    try {
      const displayMode = formula.classList.contains("display");
      katex.render(tex, formula, { ...OPTIONS, displayMode });
      if (displayMode) for (const each of [formula, ...formula.children]) widths.observe(each);
    } catch {
      formula.textContent = tex; // it is not TeX
    }
  }
  return true;
}
