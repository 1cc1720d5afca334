/**
 * Normal numbers as numpy draws them, bit for bit: Marsaglia and Tsang 2000, "The Ziggurat Method", with 256 layers of
 * equal area under exp(−x²/2), of which the lowest has the tail. Sources: that paper; numpy.random's distributions.
 */

/** The layers' right ends as float64, little-endian; 0: the area of a layer over the height of the lowest. */
const ENDS =
  "edkVeDtJD0DG9v3jC43LP7RbLDyvUNI/YTtEOLl81T8Mpy/o/AHYP7zQTC4MI9o/92E4L00A3D90cnRaL6zdP8PVTC1IMt8/rbuOJzJN4D9DXQI7BfXgP3c2" +
  "QZemkuE/9Rp6j6In4j+A2GM4LrXiP/WRV8A/POM/L7GiwZ694z9Vm/+N7znkP6f+PTa7seQ/dNMaYnUl5T+WzgengJXlP+p+2c8xAuY/PXyjYdJr5j9wBQCS" +
  "otLmP6b4RtPaNuc/dyqzEK2Y5z9D9UatRfjnP3cKQ1PMVeg/mnZ7nmSx6D+Yz06pLgvpP+oeLIJHY+k/RsU4jsm56T8sp6TczA7qP1nNd21nYuo/MBYQbq20" +
  "6j+cbBNtsQXrPyl6QoeEVes/Op9Sjjak6z8ygr8q1vHrP/NOWflwPuw/YTsypROK7D+LJnL+ydTsP0i3gA6fHu0/EB/kKZ1n7T/DuCMAzq/tP1N28ak69+0/" +
  "/u3Stes97j8Ab3oz6YPuP86C+b06ye4/JmLwhOcN7z+I9thU9lHvP67Xh55tle8/rC76fVPY7z/sNELgVg3wP5qPOfVALvA//KUWnupO8D8QoHJbVm/wPwv0" +
  "cZCGj/A/E2G8hH2v8D9/zEtmPc/wP2sIFkvI7vA/7hWVMiAO8T++DzEHRy3xP0GRjp8+TPE/HiDEvwhr8T802ngap4nxP4ht7lEbqPE/yyr4+GbG8T8u1OCT" +
  "i+TxP5+gQJmKAvI/6cbEcmUg8j8fw+l9HT7yP/trqQy0W/I/f9MdZip58j8b1xnHgZbyP9ouuGK7s/I/U7jhYtjQ8j+Oqcvo2e3yP9dIbg3BCvM/MLn04Y4n" +
  "8z+hXiZwRETzP9VSyrriYPM/algFvmp98z9ksrJv3ZnzPwM9uL87tvM/4B1WmIbS8z+DWnLevu7zP3Se4HHlCvQ/XXSmLfsm9D+kMDzoAEP0P13HynP3XvQ/" +
  "NsNmnt969D8vj0gyupb0P11BAvaHsvQ/3BGzrEnO9D8FpjgWAOr0P2JVXu+rBfU/WosK8k0h9T9PZmrV5jz1P8iyG053WPU/eF9VDgB09T8UhQ7GgY/1P1kb" +
  "JCP9qvU/PXN90XLG9T/TjC974+H1Pzhen8hP/fU/wx+jYLgY9j+isKLoHTT2PwsmtwSBT/Y/cpbJV+Jq9j83MbGDQob2P7GyUCmiofY/u0Oz6AG99j9S0yhh" +
  "Ytj2P1T4YTHE8/Y/62iL9ycP9z/GFGlRjir3P9zucNz3Rfc/H3PlNWVh9z9J9O/61nz3P5O9ushNmPc/CRSLPMqz9z/7ItvzTM/3P+fec4zW6vc/H+qGpGcG" +
  "+D92hsjaACL4PxWfic6iPfg/vfXRH05Z+D/FfnpvA3X4Py33R1/DkPg/Q8AFko6s+D+cDKGrZcj4PydqRFFJ5Pg/j7VzKToA+T9HgyjcOBz5P/wK7xJGOPk/" +
  "iqIDeWJU+T/u1XC7jnD5PzEqLonLjPk/v5k/kxmp+T8s2dWMecX5PxF0byvs4fk/StL6JnL++T+SNvk5DBv6P1vIoiG7N/o/iLsLnn9U+j+kqUpyWnH6Pz0x" +
  "oGRMjvo/CPGfPlar+j/O9VrNeMj6Pzazi+G05fo/GqHDTwsD+z9bmJrwfCD7PwAM4KAKPvs/Az3OQbVb+z8niT+5fXn7Pzz35fFkl/s/biWF22u1+z+iwC5r" +
  "k9P7P4OugZvc8fs/oBbsbEgQ/D8tevDl1y78PxwNbhOMTfw/BYfsCGZs/D8XpuvgZov8P6uiNr2Pqvw/kNY7x+HJ/D834GgwXun8P26PizIGCf0/IO83ENso" +
  "/T9HxjMV3kj9PyPx55YQaf0/pfvX9HOJ/T9wbiCZCar9Pw5J/PjSyv0/Ny5SldHr/T8c0kn7Bg3+P/ZG6sR0Lv4/iNHBmRxQ/j8l/pcvAHL+Pwq/KkshlP4/" +
  "CG/3wIG2/j86pxB2I9n+P6nsAWEI/P4/IVPCijIf/z9tTbcPpEL/P2gBySBfZv8/gpeJBGaK/z+/InEYu67/P4XnL9Jg0/8/C/YYwVn4/z91oNNH1A4AQEfJ" +
  "jwKoIQBAqwKpg6k0AEDH9T5O2kcAQH6zrfY7WwBAaCanI9BuAEAXLmOPmIIAQFSi6AiXlgBAxMBxdc2qAEBI1O7RPb8AQDA9qjTq0wBAk2URz9ToAEC2n6bv" +
  "//0AQEFwIARuEwFANV27myEpAUBtCcRpHT8BQDsuYEhkVQFA8+6dO/lrAUBhEtJ034IBQKzrTlYamgFAji9/d62xAUCUpnGpnMkBQDmu5Pvr4QFAAdniwp/6" +
  "AUCBzASdvBMCQO7Tb3pHLQJAJJyspEVHAkDgWHbHvGECQC5ZqPqyfAJAeA53zS6YAkBSCipTN7QCQJfbljHU0AJA9XipsQ3uAkDurlbS7AsDQKOkaF57KgNA" +
  "oxKuBcRJA0BAqDN60mkDQApBVpKzigNA+oiucHWsA0CmBBezJ88DQHX0YKrb8gNA2uW5nKQXBECUXlQVmD0EQBU6p0TOZARAvEOcdWKNBEAnWmudc7cEQAKJ" +
  "zQ0l4wRAQazpU58QBUBCfjpSEUAFQBvkSqmxcQVA2Y1xi8ClBUD+0DokitwFQEwehs9pFgZA6moAe85TBkDD5Z++QJUGQDLiCY1r2wZANHpf8CgnB0BzBglW" +
  "lXkHQIzO1vQt1AdANPIpBQM5CEAUfKq/D6sIQJZEb5TgLglAq1dAAe7LCUBad5R43I8KQLH9eDgfmAtAM60JgrQ7DUA=";

const HALF = 2 ** 52; // whole numbers that make a place in a layer

/** A source of uniform numbers: 64 bits, and reals in [0, 1). */
export interface Uniform {
  bits(): bigint;
  next(): number;
}

interface Layers {
  /** Right ends. */
  x: Float64Array;
  /** Heights exp(−x²/2) at the right ends; 1 for the lowest layer. */
  height: Float64Array;
  /** Places below which a point lies in the layer above, too, and so under the curve. */
  sure: Float64Array;
}

let layers: Layers | null = null;

/** The next normal number of a source, mean 0 and variance 1. */
export function normal(source: Uniform): number {
  const { x: ends, height, sure } = (layers ??= table());
  for (;;) {
    const drawn = source.bits();
    const layer = Number(drawn & 0xffn);
    const place = Number((drawn >> 9n) & 0xfffffffffffffn);
    const size = place * (ends[layer] / HALF);
    const x = drawn & 0x100n ? -size : size;
    if (place < sure[layer]) return x;
    if (layer === 0) return (drawn >> 17n) & 1n ? -tail(source, ends[255]) : tail(source, ends[255]);
    const above = height[layer];
    if ((height[layer - 1] - above) * source.next() + above < Math.exp(-0.5 * x * x)) return x;
  }
}

/** A number beyond the last end, by Marsaglia's method of 1964; its last bits are those of the engine's `log1p`. */
function tail(source: Uniform, end: number): number {
  for (;;) {
    const beyond = -Math.log1p(-source.next()) * (1 / end);
    const other = -Math.log1p(-source.next());
    if (other + other > beyond * beyond) return end + beyond;
  }
}

function table(): Layers {
  const bytes = Uint8Array.from(atob(ENDS), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const x = Float64Array.from({ length: 256 }, (_, at) => view.getFloat64(8 * at, true));
  const height = x.map((end, at) => (at === 0 ? 1 : Math.exp(-0.5 * end * end)));
  const sure = x.map((end, at) => (at === 1 ? 0 : Math.round((x[at === 0 ? 255 : at - 1] / end) * HALF)));
  return { x, height, sure };
}
