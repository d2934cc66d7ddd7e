// Package jobboard is a small job board: the kind of HTTP service that many
// already run. It has two APIs and an MCP server, each with a listener of its own, and
// it trusts the header X-User-Id to say who is calling, as services behind a gateway
// do.
//
//	Jobs, 127.0.0.1:9001
//	GET  /jobs               list and search: q, location, remote, skill, page, per_page
//	GET  /jobs/{id}          one job
//	GET  /health
//
//	Applications and resumes, 127.0.0.1:9002
//	GET  /applications       the caller's applications: status, page, per_page
//	GET  /applications/{id}  one of them
//	POST /applications       apply: {"job_id": "...", "cover_letter": "..."}
//	GET  /resume             the caller's resume
//	POST /resume/analyze     how well it fits a job: {"job_id": "..."}
//	GET  /health
//
//	MCP server (Streamable HTTP), 127.0.0.1:9003
//	/mcp                     tools: search_jobs, get_job, list_applications, submit_application, analyze_resume
//	GET  /health
//
// Told which gate it is behind (Board.Gate, and the flag -gate of the command), it
// serves only what shows by a signed proof that it came through that.
//
// Everything is kept in memory and gone with the process.
package jobboard
