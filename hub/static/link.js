// The code of a one-time link goes from behind the # into the form, and out of the address
// and the browser's history.
"use strict";
(() => {
  const field = document.getElementById("token");
  const code = decodeURIComponent(location.hash.slice(1));
  if (code) {
    field.value = code;
    history.replaceState(null, "", location.pathname);
  }
  if (field.value) document.getElementById("code").hidden = true;
  (document.getElementById("username") || document.querySelector("form button")).focus();
})();
