package issuer

import (
	"fmt"
	"slices"
	"strings"
)

// EventTypePrefix stands before each type of event in the audit trail.
const EventTypePrefix = "gpt.oauth."

// auditEventTypes are the types of events of the audit trail. They are written in
// SQL, where a reader of a statement sees what it writes; docs/events.md and a test
// of it hold both to this list.
var auditEventTypes = []string{
	"account_ended", "authorize", "client_added", "client_deleted", "client_disabled", "client_enabled", "client_registered",
	"client_secret_rotated", "client_session_opened", "client_updated", "counter_ahead", "device_allowed", "device_denied", "login", "logout",
	"passkey_added", "passkey_copied", "passkey_removed", "password_changed", "password_reset", "password_reset_made", "provider_logout",
	"recovery_code_used", "recovery_codes_made", "replay_detected", "restored", "second_factor_added", "second_factor_removed",
	"session_asserted", "session_delegated", "session_narrowed", "session_revoked", "token_exchanged", "token_issued_by_operator",
	"user_created", "user_disabled", "user_enabled", "user_ended", "user_erased",
}

// AuditEventTypes returns the types of events of the audit trail, without
// EventTypePrefix, sorted.
func AuditEventTypes() []string { return slices.Clone(auditEventTypes) }

// checkAuditEventType names the types that may be meant, if there is no such type.
func checkAuditEventType(name string) error {
	if slices.Contains(auditEventTypes, name) {
		return nil
	}
	if near := nearAuditEventTypes(strings.TrimPrefix(name, EventTypePrefix)); len(near) > 0 {
		return fmt.Errorf("%q is not a type of event; is %s meant? docs/events.md lists them all", name, strings.Join(near, " or "))
	}
	return fmt.Errorf("%q is not a type of event, such as session_revoked; docs/events.md lists them all", name)
}

// nearAuditEventTypes are those that name may be a slip of: by a letter or two, or
// else those that have most words in common with it.
func nearAuditEventTypes(name string) (near []string) {
	least := 2
	for _, known := range auditEventTypes {
		distance := editDistance(name, known)
		if distance < least {
			near, least = nil, distance
		}
		if distance == least {
			near = append(near, known)
		}
	}
	if len(near) > 0 {
		return near
	}
	most := 1
	words := strings.Split(name, "_")
	for _, known := range auditEventTypes {
		common := 0
		for word := range strings.SplitSeq(known, "_") {
			if slices.Contains(words, word) {
				common++
			}
		}
		if common > most {
			near, most = nil, common
		}
		if common == most {
			near = append(near, known)
		}
	}
	return near
}

// editDistance counts the letters to add, remove or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
