package validator

// IdentityHeaders names the headers that carry the caller's identity to the
// upstream. An empty field means its default.
type IdentityHeaders struct {
	User    string // default X-User-Id
	Client  string // default X-Client-Id
	Session string // default X-Session-Id
	Scopes  string // default X-Scopes
}
