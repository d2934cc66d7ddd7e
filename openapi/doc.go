// Package openapi reads from an OpenAPI document which operations an API has
// and what each requires, and writes that into one. It reads versions 3.0 and
// 3.1, in YAML and JSON, with references inside the document.
//
// It reads what it needs and checks what it reads: a document that is wrong
// elsewhere passes, and one that is unclear about who may call an operation
// does not. It knows neither gates nor rules; it fetches nothing.
//
// OpenAPI 3.1.1 sections 4.8.5 (servers), 4.8.9 (path items), 4.8.27 (security
// schemes) and 4.8.30 (security requirements).
package openapi
