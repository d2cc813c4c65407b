"use strict";

// The tokens of a login travel as cookies that scripts cannot read; the CSRF value is put into the Authorize dialog after
// "Try it out" of auth/login or auth/refresh, and can be typed there by hand.
const ui = SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  validatorUrl: null,
  withCredentials: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  responseInterceptor: (response) => {
    if (response.ok && /\/auth\/(login|refresh)$/.test(response.url)) {
      ui.preauthorizeApiKey("csrf", response.obj.data.csrf_token);
    }
    return response;
  },
});
