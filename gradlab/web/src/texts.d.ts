declare module "*.css" {
  const text: string;
  export default text;
}

declare module "*?code" {
  const code: string;
  export default code;
}
