// The colors of emotions, the same as in all pictures of affekt (affekt/timeline/colors.py).

const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#b8a800"];
const [BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GRAY, YELLOW] = PALETTE;
const USUAL = {
  angry: VERMILION,
  happy: ORANGE,
  sad: BLUE,
  neutral: GRAY,
  fear: PINK,
  disgust: GREEN,
  surprise: YELLOW,
  calm: SKY,
  bored: SKY,
  excited: YELLOW,
  frustrated: PINK,
};

/** Return the color of each emotion: its usual one, or else the next that is free. */
export function emotionColors(emotions) {
  const colors = {};
  for (const emotion of emotions) {
    if (USUAL[emotion] && !Object.values(colors).includes(USUAL[emotion])) colors[emotion] = USUAL[emotion];
  }
  const free = PALETTE.filter((color) => !Object.values(colors).includes(color));
  emotions
    .filter((emotion) => !colors[emotion])
    .forEach((emotion, i) => (colors[emotion] = free[i] ?? PALETTE[i % PALETTE.length]));
  return colors;
}

/** Return black or white, whichever is easier to read on a color. */
export function inkOn(color) {
  const parts = [1, 3, 5].map((start) => Number.parseInt(color.slice(start, start + 2), 16) / 255);
  const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}
