{{- define "sdgrpc.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "sdgrpc.selector" -}}
app.kubernetes.io/name: sdgrpc
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sdgrpc.labels" -}}
{{ include "sdgrpc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sdgrpc.server" -}}
{{ include "sdgrpc.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "sdgrpc.envoy" -}}
{{ include "sdgrpc.selector" . }}
app.kubernetes.io/component: envoy
{{- end -}}

{{- define "sdgrpc.picker" -}}
{{ include "sdgrpc.selector" . }}
app.kubernetes.io/component: picker
{{- end -}}

{{- define "sdgrpc.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "sdgrpc.name" .) -}}
{{- end -}}

{{- /* A setting as its variable has it: lists with commas between, folders with colons, as docs/settings.md says. */ -}}
{{- define "sdgrpc.setting" -}}
{{- if kindIs "slice" .value -}}
{{- join (ternary ":" "," (has .name (list "lora_dir" "embedding_dir"))) .value -}}
{{- else if kindIs "float64" .value -}}
{{- if eq .value (floor .value) }}{{ int64 .value }}{{ else }}{{ .value }}{{ end -}}
{{- else -}}
{{- .value -}}
{{- end -}}
{{- end -}}

{{- define "sdgrpc.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
