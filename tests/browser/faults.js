// What makes a page hard to read or to use: returns a list of faults, empty on a good page.
// With `all` false only the portal's header and footer are looked at.
(all) => {
  const faults = [];
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const luminance = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const name = (e) => `${e.tagName.toLowerCase()}#${e.id}.${e.className} "${(e.textContent || "").trim().slice(0, 30)}"`;
  const mine = (e) => all || e.closest(".lab-header, .lab-footer");

  if (document.documentElement.lang !== "en") faults.push("no language");
  if (!document.title.trim()) faults.push("no title");
  if (all && document.querySelectorAll("main").length !== 1) faults.push("not one main");
  if (all && document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wider than the window: ${document.documentElement.scrollWidth}`);

  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!mine(heading) || !shown(heading)) continue;
    const next = Number(heading.tagName[1]);
    if (next > level + 1) faults.push(`heading skips a level: ${name(heading)}`);
    level = next;
  }
  for (const image of document.querySelectorAll("img")) {
    if (mine(image) && !image.hasAttribute("alt")) faults.push(`no alt: ${image.src}`);
    if (mine(image) && shown(image) && !image.naturalWidth) faults.push(`broken picture: ${image.src}`);
  }
  for (const input of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!mine(input) || !shown(input)) continue;
    const label = input.labels?.length || input.getAttribute("aria-label") || input.getAttribute("aria-labelledby");
    if (!label) faults.push(`no label: ${name(input)}`);
    if (input.type !== "radio" && contrast(rgba(getComputedStyle(input).borderTopColor), ground(input.parentElement)) < 3)
      faults.push(`border too faint: ${name(input)}`);
  }
  for (const control of document.querySelectorAll("a[href], button")) {
    if (!mine(control) || !shown(control)) continue;
    if (!(control.textContent.trim() || control.getAttribute("aria-label"))) faults.push(`no name: ${name(control)}`);
    const box = control.getBoundingClientRect();
    if (!control.closest("p, .lab-skip, .lab-footer, .notice") && !control.matches(".lab-skip") && box.height < 24)
      faults.push(`too small for a finger: ${name(control)} ${box.height}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids)) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id twice: ${id}`);

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !mine(element) || !shown(element)) continue;
    if (element.closest("script, style, .visually-hidden, :disabled")) continue;
    const ratio = contrast(rgba(getComputedStyle(element).color), ground(element));
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${name(element)}`);
  }
  return faults;
}
