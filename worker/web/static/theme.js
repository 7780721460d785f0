// Dark or light, before anything is drawn: the system's choice, unless the visitor made another.
(() => {
  try {
    const chosen = localStorage.getItem("worker-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden: then the system decides.
  }
})();
