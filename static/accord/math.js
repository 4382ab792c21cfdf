// Typeset mathematics with KaTeX, which is loaded when a page has formulas. Formulas are untrusted: links, classes and
// images are off, sizes are bounded here, and app.css prevents colours and overlaps.

const OPTIONS = { trust: false, strict: false, maxExpand: 200, maxSize: 5 };

// A formula that is too wide scrolls, so it needs a tabindex for the keyboard. Its width changes when fonts load.
const widths = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const formula = target.closest(".math");
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
});

/** Typeset every formula in the element; return whether there was one. */
export async function setMathematics(root) {
  const formulas = [...root.querySelectorAll(".math:not([data-tex])")];
  if (!formulas.length) return false;
  const { default: katex } = await import("../katex/katex.mjs");
  for (const formula of formulas) {
    if ("tex" in formula.dataset) continue; // another call has typeset it while KaTeX was loading
    const tex = formula.textContent;
    formula.dataset.tex = formula.title = tex; // so that nothing can hide in a formula
    try {
      const displayMode = formula.classList.contains("display");
      katex.render(tex, formula, { ...OPTIONS, displayMode });
      if (displayMode) for (const element of [formula, ...formula.children]) widths.observe(element);
    } catch {
      formula.textContent = tex; // it is not TeX
    }
  }
  return true;
}
