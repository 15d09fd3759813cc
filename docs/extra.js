// A table that is wider than a phone can be scrolled by keys.
addEventListener("load", () => {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => (table.tabIndex = 0));
});
