// Before the first paint, so that nobody is blinded: what was chosen goes before what the system says.
try {
  const chosen = localStorage.getItem("streamlib-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* without storage the system decides */ }
