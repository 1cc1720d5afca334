/**
 * The names that `rating.js` offers: to hosts `mountPage` (a page without Python) and `render` (a widget), and what
 * tests call. rating_session knows the tasks and the answers, rating_form and rating_screens show them.
 */

export { mountPage } from "./rating_page";
export { joined, linesOfText, RatingSession, Stopwatch, textOfLines } from "./rating_session";
export { render } from "./rating_widget";
