// Sizes and durations for people, written as labkit/base/units.py writes them.
"use strict";
const units = (() => {
  const threeDigits = (number) => (number >= 100 ? Math.round(number) : Number(number.toPrecision(3)));

  // Bytes: 1 KB is 1024 of them, as in the lab file.
  const size = (bytes) => {
    const whole = Math.round(bytes);
    if (whole < 1024) return whole === 1 ? "1 byte" : `${whole} bytes`;
    let number = bytes;
    for (const unit of ["KB", "MB", "GB", "TB"]) {
      number /= 1024;
      if (unit === "TB" || threeDigits(number) < 1024) return `${threeDigits(number)} ${unit}`;
    }
  };

  // Seconds: at most two units, rounded to the smaller.
  const span = (seconds) => {
    if (seconds < 9.95) return `${Math.round(Math.max(seconds, 0) * 10) / 10} s`;
    const [step] = [[1, 3600], [60, 86400], [3600, Infinity]].find(([step, below]) => Math.round(seconds / step) * step < below);
    let left = Math.round(seconds / step) * step;
    const words = [];
    for (const [unit, length] of [["day", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      const count = Math.floor(left / length);
      left -= count * length;
      if (count) words.push(`${count} ${unit}${unit === "day" && count > 1 ? "s" : ""}`);
    }
    return words.join(" ");
  };

  return { size, span };
})();
