/** The colours of gradlab/plotting/palette.py, one palette per meaning; a test holds them equal. */

import { rgb } from "d3-color";
import { scaleLinear } from "d3-scale";
import type { Dash } from "./chart_messages";

export const TRUE = "#01665E";
export const NOT_TRUE = "#8C510A";
export const BALANCED_WEIGHT = "#E69F00";
export const WINNER = "#0F3D21";
export const LOSER = "#C77FD6";
export const INK = "#444444"; // lines of reference
export const CHOSEN = ["#4B3FA7", "#9A7400", "#C2418B"];
export const SETTINGS = ["#332288", "#CC6677", "#44AA99", "#999933", "#AA4499", "#88CCEE"];
/** Strokes of the dashes that `charts.py` names, in pixels. */
export const DASHES: Record<Dash, string | undefined> = { "": undefined, dashed: "6 3", dotted: "2 3", dashdot: "7 3 2 3" };

/** Colours and dashes of losses A to F, those of compared_losses.py. */
export const LOOKS: Record<string, [color: string, dash: Dash]> = {
  a: [CHOSEN[0], ""], b: [CHOSEN[1], "dashed"], c: [CHOSEN[2], "dotted"],
  d: [SETTINGS[2], "dashdot"], e: [SETTINGS[5], ""], f: [SETTINGS[1], "dashed"],
};
export const LEAST = 1e-3; // probabilities at or below it are all equally dark

/** Colours of maps, as stops at equal distances; their names are those of palette.py. */
export const STOPS = {
  signed: ["#543005", "#BF812D", "#F5F5F5", "#35978F", "#003C30"],
  sides: [LOSER, "#7A7A7A", WINNER],
  moreOfB: [CHOSEN[0], "#F5F5F5", CHOSEN[1]],
  turned: ["#543005", "#B5AFA6", "#F5F5F5"],
};

/** matplotlib's cividis (Nuñez, Anderton and Renslow 2018), 256 colours of six digits each. */
const CIVIDIS = [
  "00224e00234f00245100255300255400265600275800285900285b00295d002a5f002a61002b62002c64002c66002d68002e6a002e6c002f6d",
  "00306f0030700031700031710132710533710833700c34700f357012357014367016377018376f1a386f1c396f1e3a6f203a6f213b6e233c6e",
  "243c6e263d6e273e6e293f6e2a3f6d2b406d2d416d2e416d2f426d31436d32436d33446d34456c35456c36466c38476c39486c3a486c3b496c",
  "3c4a6c3d4a6c3e4b6c3f4c6c404c6c414d6c424e6c434e6c444f6c45506c46516c47516c48526c49536c4a536c4b546c4c556c4d556c4e566c",
  "4f576c50576c51586d52596d535a6d545a6d555b6d555c6d565c6d575d6d585e6d595e6e5a5f6e5b606e5c616e5d616e5e626e5e636f5f636f",
  "60646f61656f62656f636670646770656870656870666970676a71686a71696b716a6c716b6d726c6d726c6e726d6f726e6f736f7073707173",
  "7172747272747273747374757474757575757676767777767777777878777979777a7a787b7a787c7b787d7c787e7c787e7d787f7e78807f78",
  "817f788280798381798482798582798683798784788885788985788a86788b87788c88788d88788e89788f8a78908b78918b78928c78928d78",
  "938e78948e77958f779690779791779892779992779a93769b94769c95769d95769e96769f9775a09875a19975a29975a39a74a49b74a59c74",
  "a69c74a79d73a89e73a99f73aaa073aba072aca172ada272aea371afa471b0a571b1a570b3a670b4a76fb5a86fb6a96fb7a96eb8aa6eb9ab6d",
  "baac6dbbad6dbcae6cbdae6cbeaf6bbfb06bc0b16ac1b26ac2b369c3b369c4b468c5b568c6b667c7b767c8b866c9b965cbb965ccba64cdbb63",
  "cebc63cfbd62d0be62d1bf61d2c060d3c05fd4c15fd5c25ed6c35dd7c45cd9c55cdac65bdbc75adcc859ddc858dec958dfca57e0cb56e1cc55",
  "e2cd54e4ce53e5cf52e6d051e7d150e8d24fe9d34eead34cebd44bedd54aeed649efd748f0d846f1d945f2da44f3db42f5dc41f6dd3ff7de3e",
  "f8df3cf9e03afbe138fce236fde334fee434fee535fee636fee838",
].join("");

export type ColorsName = keyof typeof STOPS | "cividis";

/** A map's colours as 256 × (red, green, blue), from the last to the first if reversed. */
export function colorTable(name: ColorsName, reversed = false): Uint8ClampedArray {
  const table = new Uint8ClampedArray(256 * 3);
  const stops = name === "cividis" ? [] : STOPS[name];
  const between = scaleLinear<string>(stops.map((_, at) => at / (stops.length - 1)), stops);
  for (let at = 0; at < 256; at++) {
    const { r, g, b } = rgb(name === "cividis" ? `#${CIVIDIS.slice(6 * at, 6 * at + 6)}` : between(at / 255));
    table.set([r, g, b], 3 * (reversed ? 255 - at : at));
  }
  return table;
}
